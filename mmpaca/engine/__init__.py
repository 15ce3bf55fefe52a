"""Hooks and optimizer constructors of mmengine's Runner, and exact resumption."""

from .hooks import *  # noqa: F403
from .hooks import __all__ as _hooks
from .optimizers import LayerDecayOptimWrapperConstructor

__all__ = [*_hooks, 'LayerDecayOptimWrapperConstructor']
