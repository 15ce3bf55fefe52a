"""Checkpoints: the authors' weights under our names, and loading that runs no code."""

from mmpaca.models.fitting import CheckpointError
from mmpaca.models.official import TASKS, convert_official

from .loading import UnsafeCheckpointError, load_from_local, weights_of

__all__ = [
    'TASKS',
    'CheckpointError',
    'UnsafeCheckpointError',
    'convert_official',
    'load_from_local',
    'weights_of',
]
