"""Scope ``mmpaca``: children of mmengine's root registries.

The registries of mmdet, mmpretrain and mmseg look in the root, never in each other. Classes with a bare
name (``type='PaCaViT'``) are therefore registered in the root as well.
"""

from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import METRICS as MMENGINE_METRICS
from mmengine.registry import MODEL_WRAPPERS as MMENGINE_WRAPPERS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS as MMENGINE_CONSTRUCTORS
from mmengine.registry import PARAM_SCHEDULERS as MMENGINE_SCHEDULERS
from mmengine.registry import TRANSFORMS as MMENGINE_TRANSFORMS
from mmengine.registry import Registry

MODELS = Registry('model', parent=MMENGINE_MODELS, scope='mmpaca', locations=['mmpaca.models'])
MODEL_WRAPPERS = Registry(
    'model_wrapper', parent=MMENGINE_WRAPPERS, scope='mmpaca', locations=['mmpaca.engine']
)
HOOKS = Registry('hook', parent=MMENGINE_HOOKS, scope='mmpaca', locations=['mmpaca.engine'])
OPTIM_WRAPPER_CONSTRUCTORS = Registry(
    'optimizer wrapper constructor',
    parent=MMENGINE_CONSTRUCTORS,
    scope='mmpaca',
    locations=['mmpaca.engine'],
)
PARAM_SCHEDULERS = Registry(
    'parameter scheduler', parent=MMENGINE_SCHEDULERS, scope='mmpaca', locations=['mmpaca.engine']
)
METRICS = Registry(
    'metric', parent=MMENGINE_METRICS, scope='mmpaca', locations=['mmpaca.evaluation']
)
DATASETS = Registry(
    'dataset', parent=MMENGINE_DATASETS, scope='mmpaca', locations=['mmpaca.datasets']
)
TRANSFORMS = Registry(
    'transform', parent=MMENGINE_TRANSFORMS, scope='mmpaca', locations=['mmpaca.datasets']
)
