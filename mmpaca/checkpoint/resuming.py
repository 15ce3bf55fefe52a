"""Which checkpoint a run resumes from: the newest one that is whole."""

import os
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from mmengine.runner.checkpoint import CheckpointLoader

_NEEDED = ('meta', 'state_dict', 'message_hub')  # by Runner.resume


def newest_whole_checkpoint(
    folders: list[str], filename_tmpl: str, last: str | None
) -> tuple[str | None, list[str]]:
    """Look for a checkpoint to resume from.

    Args:
        folders: where checkpoints are saved.
        filename_tmpl: e.g. ``'epoch_{}.pth'``.
        last: what the file ``last_checkpoint`` says. It is tried first, for older runs may have
            left files with higher numbers; then the others, the newest first.

    Returns:
        The file, None where none is whole; and for each one skipped what is wrong with it.
    """
    pattern = re.compile(r'\d+'.join(map(re.escape, filename_tmpl.split('{}'))))
    files = {
        path.resolve()
        for folder in folders
        for path in Path(folder).glob('*')
        if pattern.fullmatch(path.name)
    }
    candidates = [str(p) for p in sorted(files, key=os.path.getmtime, reverse=True)]
    if last:
        candidates = [last, *(path for path in candidates if path != os.path.realpath(last))]
    skipped: list[str] = []
    for path in candidates:
        fault = what_is_wrong(path)
        if fault is None:
            return path, skipped
        skipped.append(fault)
    return None, skipped


def what_is_wrong(path: str) -> str | None:
    """Why a training run cannot continue from a file, with its name; None where it can."""
    try:
        checkpoint = CheckpointLoader.load_checkpoint(path, map_location='cpu', logger='silent')
        # torch.load does not look at the checksums of tensors.
        damaged = zipfile.ZipFile(path).testzip() if zipfile.is_zipfile(path) else None
    except (OSError, RuntimeError, pickle.UnpicklingError) as error:
        return str(error)
    if damaged and torch.serialization.get_crc32_options():
        return f'checkpoint {path} is damaged: {damaged} does not have its checksum'
    if not isinstance(checkpoint, Mapping) or not all(key in checkpoint for key in _NEEDED):
        return f'checkpoint {path} has not all of {", ".join(_NEEDED)}: no run can resume from it'
    return None
