"""The checkpoint that a run resumes from: the newest one that is whole."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from mmengine.runner.checkpoint import CheckpointLoader

from .saving import DIGEST, read_digest, sha256_of
from .schema import ResumeError

_NEEDED = ('meta', 'state_dict', 'message_hub')  # by Runner.resume
_MAX_PATH = 4096


def read_last_checkpoint(work_dir: str | os.PathLike) -> tuple[str | None, str | None]:
    """Read the file ``last_checkpoint``, whatever is in its place.

    Returns:
        What it names, None where there is no such file or nothing usable in it; and in that case
        what is wrong.
    """
    path = os.path.join(work_dir, 'last_checkpoint')
    if not os.path.lexists(path):
        return None, None
    if not os.path.isfile(path):  # opening a FIFO would wait for ever
        return None, f'{path} is ignored: it is not a regular file'
    try:
        with open(path, 'rb') as file:
            name = file.read(_MAX_PATH + 1).decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        return None, f'{path} is ignored: {error}'
    if not name.isprintable() or not 0 < len(name) <= _MAX_PATH:
        return None, f'{path} is ignored: {name[:50]!r} is not a path'
    return name, None


def newest_whole_checkpoint(
    folders: list[str], filename_tmpl: str, last: str | None
) -> tuple[str | None, list[str]]:
    """Find the checkpoint to resume from.

    Args:
        folders: where checkpoints are saved.
        filename_tmpl: e.g. ``'epoch_{}.pth'``.
        last: content of the file ``last_checkpoint``. The file of that name in ``folders`` is
            tried first, for older runs may have left files with higher numbers; then the others,
            the highest number first. A path outside of ``folders`` is ignored: it is another
            run's, e.g. after this work directory was moved.

    Returns:
        The file, None where none is whole; and for each one skipped what is wrong with it.
    """
    pattern = re.compile(r'(\d+)'.join(map(re.escape, filename_tmpl.split('{}'))))
    numbers: dict[str, int] = {}
    for file in (file for folder in folders for file in Path(folder).glob('*')):
        match = pattern.fullmatch(file.name)
        if match:
            numbers[os.path.join(os.path.realpath(file.parent), file.name)] = int(match[1])
    # Not by time: a clock may have been set back, a copy has the time of the copy.
    candidates = sorted(numbers, key=lambda path: numbers[path], reverse=True)
    skipped: list[str] = []
    if last:
        first = _in_folders(folders, last)
        if first is None:
            skipped.append(
                f'checkpoint {last!r} of last_checkpoint is not in {" or ".join(folders)}'
            )
        else:
            candidates = [first, *(p for p in candidates if not _is_same(p, first))]
    for path in candidates:
        fault = what_is_wrong(path)
        if fault is None:
            return path, skipped
        skipped.append(fault)
    return None, skipped


def check_digest(folder: str | os.PathLike, path: str) -> str | None:
    """Compare a checkpoint with the SHA-256 that was recorded when it was saved.

    Args:
        folder: has ``last_checkpoint.sha256``, which may be of another checkpoint or missing.
        path: checkpoint.

    Returns:
        A warning if the record is ignored.

    Raises:
        ResumeError: the digests differ: the file was changed or replaced since.
    """
    try:
        recorded = read_digest(folder)
    except (OSError, ValueError) as error:
        return f'the SHA-256 of {path} is not checked: {error}'
    if recorded is None or recorded[1] != os.path.basename(path) or not os.path.isfile(path):
        return None
    found = sha256_of(path)
    if found != recorded[0]:
        raise ResumeError(
            f'cannot resume {path}: its SHA-256 is {found}, {os.path.join(folder, DIGEST)} has '
            f'{recorded[0]}. The file was changed after it was saved; to resume from it all the '
            f'same, delete {DIGEST}'
        )
    return None


def _in_folders(folders: list[str], last: str) -> str | None:
    """The path of that file name in the folders, None where it is of another folder."""
    if '\0' in last:
        return None
    here = {os.path.realpath(folder) for folder in folders}
    if os.path.realpath(os.path.dirname(last)) in here:
        return last
    paths = [os.path.join(folder, os.path.basename(last)) for folder in folders]
    return next(filter(os.path.isfile, paths), None)


def _is_same(path: str, other: str) -> bool:
    return os.path.realpath(path) == os.path.realpath(other)


def what_is_wrong(path: str) -> str | None:
    """Why a training run cannot resume from a file, with its name; None where it can."""
    try:
        checkpoint = CheckpointLoader.load_checkpoint(path, map_location='cpu', logger='silent')
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever the bytes are, an older file may be whole
        return str(error) if path in str(error) else f'checkpoint {path}: {error!r}'
    if not isinstance(checkpoint, Mapping) or not all(key in checkpoint for key in _NEEDED):
        return (
            f'checkpoint {path} cannot be resumed from: it does not have all of '
            f'{", ".join(_NEEDED)}'
        )
    return None
