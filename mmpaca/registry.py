"""Scope ``mmpaca``: children of mmengine's root registries.

mmdet's and mmpretrain's registries ask the root, never each other, so what shall be found under
its bare name (``type='PaCaViT'``) is registered in the root as well.
"""

from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import METRICS as MMENGINE_METRICS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import Registry

MODELS = Registry('model', parent=MMENGINE_MODELS, scope='mmpaca', locations=['mmpaca.models'])
HOOKS = Registry('hook', parent=MMENGINE_HOOKS, scope='mmpaca', locations=['mmpaca.engine'])
METRICS = Registry('metric', parent=MMENGINE_METRICS, scope='mmpaca', locations=['mmpaca.explain'])
