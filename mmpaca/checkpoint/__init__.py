"""Checkpoints: the authors' weights under our names, and loading that runs no code."""

from .loading import UnsafeCheckpointError, load_from_local, weights_of
from .official import TASKS, convert_official

__all__ = ['TASKS', 'UnsafeCheckpointError', 'convert_official', 'load_from_local', 'weights_of']
