"""Check the entries of a checkpoint that OpenMMLab reads without looking."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from mmpaca.models.fitting import CheckpointError

from .schema import short

_EXTRA = '_extra_state'  # of modules that save what is no tensor
_CLASSES = ('classes', 'CLASSES')
_MAX_NAME = 1000  # characters of a class


def check_contents(checkpoint: Any, filename: str) -> None:
    """Check weights and metadata, as far as a checkpoint has them under mmengine's names.

    Args:
        checkpoint: from a loader.
        filename: for the message.

    Raises:
        CheckpointError: weights are no tensors, or metadata are not of mmengine's kind.
    """
    if not isinstance(checkpoint, Mapping):
        return
    weights = checkpoint.get('state_dict', {})
    _require(isinstance(weights, Mapping), filename, 'state_dict', weights, 'a dict of tensors')
    for name, value in weights.items():
        _require(isinstance(name, str), filename, 'a name in state_dict', name, 'a string')
        valid = isinstance(value, Tensor) or name.endswith(_EXTRA)
        _require(valid, filename, f'state_dict.{name:.200}', value, 'a tensor')
    meta = checkpoint.get('meta', {})
    _require(isinstance(meta, Mapping), filename, 'meta', meta, 'a dict')
    dataset = meta.get('dataset_meta', {})
    named = isinstance(dataset, Mapping) and all(isinstance(name, str) for name in dataset)
    _require(named, filename, 'meta.dataset_meta', dataset, 'a dict with strings as keys')
    for holder, entry in ((meta, 'meta'), (dataset, 'meta.dataset_meta')):
        for key in _CLASSES:
            _check_classes(holder.get(key), f'{entry}.{key}', filename)


def _check_classes(names: Any, entry: str, filename: str) -> None:
    if names is None or isinstance(names, str):
        return
    _require(isinstance(names, list | tuple), filename, entry, names, 'a list of names')
    for name in names:
        valid = isinstance(name, str | int) and len(str(name)) <= _MAX_NAME
        _require(valid, filename, f'an element of {entry}', name, 'a name')


def _require(holds: bool, filename: str, entry: str, value: Any, expected: str) -> None:
    if not holds:
        raise CheckpointError(
            f'checkpoint {filename} is damaged: {entry} is {short(value)}, expected {expected}'
        )
