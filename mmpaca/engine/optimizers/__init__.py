"""Constructors of optimizer wrappers."""

from .layer_decay_optimizer_constructor import LayerDecayOptimWrapperConstructor
from .merged_optimizer_constructor import MergedOptimWrapperConstructor

__all__ = ['LayerDecayOptimWrapperConstructor', 'MergedOptimWrapperConstructor']
