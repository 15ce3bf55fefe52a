"""Write the weights of a checkpoint under OpenMMLab's names, as .pth or .safetensors."""

import io
import os
from collections.abc import Mapping

import torch

from mmpaca.checkpoint import convert_official, load_from_local, weights_of
from mmpaca.checkpoint.loading import with_official_preprocessing
from mmpaca.checkpoint.safetensors import SUFFIX, save_safetensors
from mmpaca.checkpoint.saving import write_atomically

from .outputs import check_out_file


def convert(
    src: str | os.PathLike, dst: str | os.PathLike, task: str | None = None
) -> tuple[int, int]:
    """Write the weights of a checkpoint, without optimizer and run state.

    Args:
        src: a checkpoint of a training run, or of the authors' release.
        dst: the file to write; ends in ``.pth`` or ``.safetensors``, which cannot hold code.
        task: names of an official file's tensors: ``'backbone'`` for those of PaCaViT,
            ``'classifier'`` for mmpretrain's, ``'detector'`` for mmdet's. None recognises
            classifiers and detectors, and keeps the names of other checkpoints.

    Returns:
        Numbers of tensors written and in ``src``.

    Raises:
        ValueError: ``dst`` has another suffix, ``src`` is no dict of tensors, or, with a task, not
            one of the authors' files.
        RuntimeError, OSError, pickle.UnpicklingError: see
            :func:`mmpaca.checkpoint.load_from_local`.
    """
    dst = check_out_file(dst, 'DST')
    if dst.suffix not in ('.pth', SUFFIX):
        raise ValueError(f'DST {dst} must end in .pth or {SUFFIX}')
    checkpoint = load_from_local(src, map_location='cpu', rename=task is None)
    weights = weights_of(checkpoint)
    converted = weights if task is None else convert_official(weights, task)
    meta = checkpoint.get('meta', {})
    if task is not None:
        meta = with_official_preprocessing(meta)
    if dst.suffix == SUFFIX:
        save_safetensors(converted, meta if isinstance(meta, Mapping) else {}, dst)
    else:
        content = io.BytesIO()
        torch.save(dict(state_dict=dict(converted), meta=meta), content)
        write_atomically(dst, content.getvalue())
    return len(converted), len(weights)
