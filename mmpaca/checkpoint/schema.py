"""Check the content of a training checkpoint against the run that resumes from it.

Everything is checked before anything is applied; an error names the entry, what it holds and what
it should hold. :mod:`.optimizer_schema` and :mod:`.scheduler_schema` check optimizers and schedulers.
"""

import reprlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from torch import Tensor

NEW_RUN = 'start a new run from its weights with --cfg-options load_from=FILE (without --resume)'
_REMEDY = f'Resume from another checkpoint, or {NEW_RUN}'
_MAX_SEED = 2**32 - 1
LARGEST = sys.float_info.max
# Entries of message_hub.runtime_info that decide what a run saves and deletes.
_PATHS = ('last_ckpt', 'best_ckpt')
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 60


class ResumeError(RuntimeError):
    """A run cannot resume from a checkpoint; the message is one sentence with the remedy."""


class SchemaError(ValueError):
    """An entry of a checkpoint is not what the run needs.

    Args:
        entry: e.g. ``'meta.iter'``.
        fault: e.g. ``'is -1, not a whole number >= 0'``.
        remedy: what the user can do.
    """

    def __init__(self, entry: str, fault: str, remedy: str = _REMEDY) -> None:
        super().__init__(f'{entry} {fault}. {remedy}')


def short(value: Any) -> str:
    """A value in an error."""
    if isinstance(value, Tensor):
        return f'a tensor of shape {tuple(value.shape)} and {value.dtype}'
    return f'{_SHORT.repr(value)} ({type(value).__name__})'


def require(holds: bool, entry: str, value: Any, expected: str) -> None:
    """Raise a SchemaError unless a condition holds."""
    if not holds:
        raise SchemaError(entry, f'is {short(value)}, expected {expected}')


def check_mapping(value: Any, entry: str) -> Mapping:
    """A dict with strings as keys."""
    require(isinstance(value, Mapping), entry, value, 'a dict')
    for key in value:
        require(isinstance(key, str), f'a key of {entry}', key, 'a string')
    return value


def check_list(value: Any, entry: str, length: int | None = None) -> Sequence:
    """A list or tuple, of a given length if there is one."""
    require(isinstance(value, list | tuple), entry, value, 'a list')
    if length is not None and len(value) != length:
        raise SchemaError(entry, f'has {len(value)} elements, expected {length}')
    return value


def check_whole(value: Any, entry: str, least: int = 0, most: int | None = None) -> int:
    """A whole number in a range."""
    holds = type(value) is int and value >= least and (most is None or value <= most)
    upper = '' if most is None else f' and <= {most}'
    require(holds, entry, value, f'a whole number >= {least}{upper}')
    return value


def check_number(value: Any, entry: str, least: float = 0, most: float = LARGEST) -> float:
    """A finite number in a range."""
    is_number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    holds = is_number and least <= value <= most  # false for NaN
    if isinstance(value, int) and abs(value) >= 2**63:
        holds = False  # torch converts whole numbers to 64 bits
    lower = 'a finite number' if least == -LARGEST else f'a finite number >= {least:g}'
    upper = '' if most == LARGEST else f' and <= {most:g}'
    require(holds, entry, value, lower + upper)
    return value


def check_tensor(value: Any, entry: str, like: Tensor, owner: str) -> None:
    """A tensor with shape and type of another one, and finite where that one is.

    Args:
        value: from the checkpoint.
        entry: its name.
        like: from the run; on the meta device if any finite values will do.
        owner: name of ``like`` in errors.
    """
    require(type(value) is Tensor, entry, value, f'a tensor of shape {tuple(like.shape)}')
    if value.shape != like.shape:
        raise SchemaError(entry, f'has shape {tuple(value.shape)}, {owner} has {tuple(like.shape)}')
    if value.dtype != like.dtype or value.layout != like.layout:
        raise SchemaError(entry, f'is of {value.dtype}, {owner} is of {like.dtype}')
    bad = nonfinite_share(value)
    if bad and (like.is_meta or not nonfinite_share(like)):
        raise SchemaError(entry, f'has {bad:.1%} NaN or infinite values')


def nonfinite_share(value: Tensor) -> float:
    """Share of NaN and infinite values."""
    if not (value.is_floating_point() or value.is_complex()) or not value.numel():
        return 0.0
    finite = torch.isfinite(value.float() if value.itemsize == 1 else value)  # of 8 bits
    return 0.0 if bool(finite.all()) else 1 - finite.float().mean().item()


def check_keys(value: Mapping, like: Mapping, entry: str) -> None:
    """The same keys, in any order."""
    for kind, names in (('lacks', like.keys() - value.keys()), ('has', value.keys() - like.keys())):
        if names:
            listed = ', '.join(sorted(names)[:3]) + (', ...' if len(names) > 3 else '')
            unknown = '' if kind == 'lacks' else ', which this run does not have'
            raise SchemaError(entry, f'{kind} {listed}{unknown}')


def nonfinite_tensors(state: Any, entry: str = '') -> list[str]:
    """Names of the tensors with NaN or infinite values in nested dicts and lists."""
    if isinstance(state, Tensor):
        return [entry] if nonfinite_share(state) else []
    if isinstance(state, Mapping):
        parts = [(f'{entry}.{key}' if entry else str(key), part) for key, part in state.items()]
    elif isinstance(state, list | tuple):
        parts = [(f'{entry}[{number}]', part) for number, part in enumerate(state)]
    else:
        return []
    return [name for key, part in parts for name in nonfinite_tensors(part, key)]


def check_tensors(value: Any, like: Mapping[str, Any], entry: str, owner: str) -> None:
    """Weights of the same names, shapes and types as the run's."""
    check_mapping(value, entry)
    check_keys(value, like, entry)
    for name, ours in like.items():
        if isinstance(ours, Tensor):
            check_tensor(value[name], f'{entry}.{name}', ours, owner)


def needed(checkpoint: Mapping, key: str) -> Any:
    """An entry that a checkpoint must have.

    Raises:
        SchemaError: it has none.
    """
    if key not in checkpoint:
        hint = (
            'Checkpoints named best_* have only weights: resume from another one'
            if 'optimizer' not in checkpoint
            else 'Resume from another checkpoint'
        )
        raise SchemaError(
            key,
            'is missing',
            f'{hint}, or {NEW_RUN}',
        )
    return checkpoint[key]


def check_meta(checkpoint: Mapping) -> Mapping:
    """``meta``: place in the run and seed."""
    meta = check_mapping(needed(checkpoint, 'meta'), 'meta')
    for key in ('epoch', 'iter'):
        check_whole(meta.get(key), f'meta.{key}')
    if meta.get('seed') is not None:
        check_whole(meta['seed'], 'meta.seed', most=_MAX_SEED)
    for key in ('cfg', 'config', 'experiment_name', 'time', 'mmengine_version'):
        require(isinstance(meta.get(key, ''), str), f'meta.{key}', meta.get(key), 'a string')
    return meta


def check_message_hub(checkpoint: Mapping, meta: Mapping) -> None:
    """``message_hub``: logged scalars, and what the checkpoint hook remembers."""
    hub = check_mapping(needed(checkpoint, 'message_hub'), 'message_hub')
    for key in ('log_scalars', 'runtime_info', 'resumed_keys'):
        check_mapping(hub.get(key), f'message_hub.{key}')
    for name, buffer in hub['log_scalars'].items():
        entry = f'message_hub.log_scalars.{name}'
        require(isinstance(buffer, HistoryBuffer), entry, buffer, 'a HistoryBuffer')
        values, counts = buffer.data
        holds = values.dtype.kind in 'biuf' and counts.dtype.kind in 'biuf'
        require(holds and len(values) == len(counts) > 0, entry, values, 'numbers')
        require(bool((counts >= 0).all()), f'the counts of {entry}', counts, 'numbers >= 0')
    for name, value in hub['resumed_keys'].items():
        require(type(value) is bool, f'message_hub.resumed_keys.{name}', value, 'a bool')
        if value != (name in hub['log_scalars'] or name in hub['runtime_info']):
            there = 'has no value' if value else 'is False and has a value'
            raise SchemaError(f'message_hub.resumed_keys.{name}', f'{there} in message_hub')
    _check_runtime_info(hub['runtime_info'], meta)


def _check_runtime_info(info: Mapping, meta: Mapping) -> None:
    entry = 'message_hub.runtime_info'
    for key in ('iter', 'epoch'):
        if key in info:  # the last one begun; the current one if a validation came before it
            least = max(meta[key] - 1, 0)
            check_whole(info[key], f'{entry}.{key} beside meta.{key}', least, meta[key])
    for key, value in info.items():
        if key in _PATHS or key.startswith('best_ckpt_'):
            require(isinstance(value, str), f'{entry}.{key}', value, 'a path')
        elif key == 'best_score' or key.startswith('best_score_'):
            check_number(value, f'{entry}.{key}', -LARGEST)
    for number in check_list(info.get('keep_ckpt_ids', []), f'{entry}.keep_ckpt_ids'):
        check_whole(number, f'an element of {entry}.keep_ckpt_ids')
    for name in check_list(info.get('replaced_ckpts', []), f'{entry}.replaced_ckpts'):
        require(isinstance(name, str), f'an element of {entry}.replaced_ckpts', name, 'a name')
