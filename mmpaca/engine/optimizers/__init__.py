"""Constructors of optimizer wrappers."""

from .layer_decay_optimizer_constructor import LayerDecayOptimWrapperConstructor

__all__ = ['LayerDecayOptimWrapperConstructor']
