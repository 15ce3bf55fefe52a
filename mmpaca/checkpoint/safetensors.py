"""Checkpoints in the safetensors format, which can hold nothing but tensors and text."""

import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .saving import write_atomically

SUFFIX = '.safetensors'
# What testing and the inferencers read beside the weights.
_META = ('cfg', 'dataset_meta', 'epoch', 'iter')


def load_safetensors(filename: str, map_location: Any = None) -> dict[str, Any]:
    """Read weights, under ``'state_dict'``, and where we wrote it ``'meta'``.

    Args:
        filename: ends in ``SUFFIX``.
        map_location: a device; anything else that ``torch.load`` takes stands for the CPU.

    Raises:
        RuntimeError: the file is truncated or something else.
    """
    from safetensors import SafetensorError, safe_open

    device = map_location if isinstance(map_location, str | torch.device) else 'cpu'
    try:
        with safe_open(filename, framework='pt') as file:
            weights = {name: file.get_tensor(name).to(device) for name in file.keys()}  # noqa: SIM118
            meta = json.loads((file.metadata() or {}).get('meta', '{}'))
    except (SafetensorError, json.JSONDecodeError) as error:
        raise RuntimeError(
            f'checkpoint {filename} ({os.path.getsize(filename)} bytes) is truncated, '
            f'unreadable or no safetensors file: {error}'
        ) from error
    return dict(state_dict=weights, meta=meta)


def save_safetensors(
    weights: Mapping[str, Tensor], meta: Mapping[str, Any], filename: str | os.PathLike
) -> None:
    """Write weights, atomically, with what of ``meta`` testing and the inferencers read.

    Args:
        weights: ``{name: tensor}``.
        meta: of a checkpoint; ``cfg``, ``dataset_meta``, ``epoch`` and ``iter`` are kept.
        filename: the file.

    Raises:
        TypeError: ``meta`` holds something that JSON has no words for.
        OSError: as :func:`mmpaca.checkpoint.saving.write_atomically`.
    """
    from safetensors.torch import save

    kept = {key: meta[key] for key in _META if key in meta}
    content = save(
        # Tensors that share memory are refused by the format.
        {name: value.detach().cpu().contiguous().clone() for name, value in weights.items()},
        metadata=dict(format='pt', meta=json.dumps(kept, default=_as_json)),
    )
    write_atomically(filename, content)


def _as_json(value: Any) -> Any:
    if isinstance(value, set | frozenset):
        return sorted(value, key=str)
    if isinstance(value, np.ndarray | np.generic | Tensor):
        return value.tolist()
    raise TypeError(
        f'the meta of a checkpoint holds a {type(value).__name__}, {value!r}, which a .safetensors '
        'file cannot: take it out of dataset_meta'
    )
