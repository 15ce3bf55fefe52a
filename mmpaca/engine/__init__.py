"""mmengine hooks."""

from .strict_load_hook import StrictLoadHook

__all__ = ['StrictLoadHook']
