"""Checkpoints in the safetensors format: tensors and text."""

import json
import os
import pickle
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmpaca.models.fitting import CheckpointError

from .preprocessing import META_KEY
from .saving import write_atomically
from .standins import check_booleans

SUFFIX = '.safetensors'
# Metadata that testing, fine-tuning and inferencers read.
_META = ('cfg', 'dataset_meta', 'epoch', 'iter', META_KEY)


def load_safetensors(filename: str, map_location: Any = None) -> dict[str, Any]:
    """Load weights (``'state_dict'``) and the metadata of :func:`save_safetensors` (``'meta'``).

    Args:
        filename: path that ends in ``SUFFIX``.
        map_location: device; anything else that ``torch.load`` takes means the CPU.

    Raises:
        CheckpointError: the file is truncated or invalid.
    """
    from safetensors import SafetensorError, safe_open

    device = map_location if isinstance(map_location, str | torch.device) else 'cpu'
    try:
        with safe_open(filename, framework='pt') as file:
            weights = {name: file.get_tensor(name).to(device) for name in file.keys()}  # noqa: SIM118
            for value in weights.values():
                if value.dtype == torch.bool:
                    check_booleans(value.view(torch.uint8))
            meta = json.loads((file.metadata() or {}).get('meta', '{}'))
            if not isinstance(meta, dict):
                raise TypeError(f'its meta is a {type(meta).__name__}, not a dict')
    except (
        SafetensorError,
        pickle.UnpicklingError,
        ValueError,
        TypeError,
        RecursionError,
    ) as error:
        raise CheckpointError(
            f'checkpoint {filename} ({os.path.getsize(filename)} bytes) is truncated, '
            f'unreadable or no safetensors file: {error}'
        ) from error
    return dict(state_dict=weights, meta=meta)


def save_safetensors(
    weights: Mapping[str, Tensor], meta: Mapping[str, Any], filename: str | os.PathLike
) -> None:
    """Write weights atomically, with the metadata that testing and inferencers read.

    Args:
        weights: ``{name: tensor}``.
        meta: metadata of a checkpoint; ``cfg``, ``dataset_meta``, ``epoch``, ``iter`` and
            ``data_preprocessor`` are kept.
        filename: path to write.

    Raises:
        TypeError: ``meta`` holds something that cannot be written as JSON.
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
