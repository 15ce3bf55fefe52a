"""Explanations: record clusters, attribute detections, draw them, write an interactive page."""

import importlib

from .attribution import METHODS, attribute, contrast
from .recorder import BlockRecord, Recording, record

__all__ = ['METHODS', 'BlockRecord', 'Recording', 'attribute', 'contrast', 'page', 'record']


def __getattr__(name: str) -> object:
    if name == 'page':  # opens models, which is the task of mmpaca.apis
        return importlib.import_module('mmpaca.apis.clusters').page
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
