"""Hooks, optimizer constructors and schedulers for mmengine's Runner, and exact resume."""

from .cpu_distributed import CPUDistributedDataParallel
from .hooks import *  # noqa: F403
from .hooks import __all__ as _hooks
from .optimizers import LayerDecayOptimWrapperConstructor, MergedOptimWrapperConstructor
from .schedulers import LinearWarmupLR

__all__ = [
    *_hooks,
    'CPUDistributedDataParallel',
    'LayerDecayOptimWrapperConstructor',
    'LinearWarmupLR',
    'MergedOptimWrapperConstructor',
]
