"""mmengine hooks."""

from .checkpoint_hook import CheckpointHook
from .resume_hook import ResumeHook
from .strict_load_hook import StrictLoadHook

__all__ = ['CheckpointHook', 'ResumeHook', 'StrictLoadHook']
