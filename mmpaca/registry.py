"""Scope ``mmpaca``: children of mmengine's root registries.

mmdet's and mmpretrain's registries ask the root, never each other, so what shall be found under
its bare name (``type='PaCaViT'``) is registered in the root as well.
"""

from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import TRANSFORMS as MMENGINE_TRANSFORMS
from mmengine.registry import Registry

MODELS = Registry('model', parent=MMENGINE_MODELS, scope='mmpaca', locations=['mmpaca.models'])
HOOKS = Registry('hook', parent=MMENGINE_HOOKS, scope='mmpaca', locations=['mmpaca.engine'])

_DATA = ['mmpaca.datasets.tolerant']  # imports mmdet's datasets, so only when asked for
DATASETS = Registry('dataset', parent=MMENGINE_DATASETS, scope='mmpaca', locations=_DATA)
TRANSFORMS = Registry('transform', parent=MMENGINE_TRANSFORMS, scope='mmpaca', locations=_DATA)
