"""mmengine hooks."""

from .bad_data_hook import BadDataHook
from .checkpoint_hook import CheckpointHook
from .finite_hook import FiniteHook
from .neck_hook import NeckHook
from .resume_hook import ResumeHook
from .strict_load_hook import StrictLoadHook

__all__ = [
    'BadDataHook',
    'CheckpointHook',
    'FiniteHook',
    'NeckHook',
    'ResumeHook',
    'StrictLoadHook',
]
