"""Scope ``mmpaca``: children of mmengine's root registries.

mmdet's and mmpretrain's registries ask the root, never each other, so what shall be found under
its bare name (``type='PaCaViT'``) is registered in the root as well.
"""

from importlib import import_module

from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import METRICS as MMENGINE_METRICS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS as MMENGINE_CONSTRUCTORS
from mmengine.registry import TRANSFORMS as MMENGINE_TRANSFORMS
from mmengine.registry import Registry

MODELS = Registry('model', parent=MMENGINE_MODELS, scope='mmpaca', locations=['mmpaca.models'])
HOOKS = Registry('hook', parent=MMENGINE_HOOKS, scope='mmpaca', locations=['mmpaca.engine'])
OPTIM_WRAPPER_CONSTRUCTORS = Registry(
    'optimizer wrapper constructor',
    parent=MMENGINE_CONSTRUCTORS,
    scope='mmpaca',
    locations=['mmpaca.engine'],
)
_METRICS = ['mmpaca.explain', 'mmpaca.evaluation']  # the latter imports mmdet's metrics
METRICS = Registry('metric', parent=MMENGINE_METRICS, scope='mmpaca', locations=_METRICS)

_DATA = ['mmpaca.datasets.tolerant']  # imports mmdet's datasets, so only when asked for
DATASETS = Registry('dataset', parent=MMENGINE_DATASETS, scope='mmpaca', locations=_DATA)
TRANSFORMS = Registry('transform', parent=MMENGINE_TRANSFORMS, scope='mmpaca', locations=_DATA)


def register_in_root(root: Registry, name: str, module: str) -> None:
    """Make a bare name known before its module is imported.

    Args:
        root: one of mmengine's registries.
        name: of a class. Its module registers it itself when it is imported, over this.
        module: where the class is.
    """

    def build(*args: object, **kwargs: object) -> object:
        return getattr(import_module(module), name)(*args, **kwargs)

    build.__name__ = build.__qualname__ = name
    root.register_module(name=name, module=build)


register_in_root(MMENGINE_MODELS, 'PaCaViT', 'mmpaca.models')
register_in_root(MMENGINE_HOOKS, 'ClusterRecordHook', 'mmpaca.engine')
register_in_root(MMENGINE_HOOKS, 'ClusterVisualizationHook', 'mmpaca.engine')
register_in_root(MMENGINE_CONSTRUCTORS, 'LayerDecayOptimWrapperConstructor', 'mmpaca.engine')
register_in_root(MMENGINE_METRICS, 'ClusterAlignmentMetric', 'mmpaca.explain')
register_in_root(MMENGINE_METRICS, 'FasterCocoMetric', 'mmpaca.evaluation')
