"""Explanations: record clusters, attribute detections, draw them, write an interactive page."""

import importlib

from .attribution import attribute
from .recorder import BlockRecord, Recording, record

__all__ = ['BlockRecord', 'Recording', 'attribute', 'page', 'record']


def __getattr__(name: str) -> object:
    if name == 'page':  # opens models, which is the task of mmpaca.apis
        return importlib.import_module('mmpaca.apis.clusters').page
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
