"""Places to write to, checked before the work begins."""

import os
from pathlib import Path


def check_out_file(path: str | os.PathLike, option: str) -> Path:
    """Check that a file can be written.

    Args:
        path: the file; folders that are missing are created when it is written.
        option: name of the argument, for the error.

    Raises:
        ValueError: it is a folder or a device, or its folder cannot be written to.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f'{option} {path} is a folder: give a file')
    if path.exists() and not path.is_file():  # a renamed file would take its place
        raise ValueError(f'{option} {path} is a device or a pipe: give a file')
    _check_writable(path.absolute().parent, path, option)
    return path


def check_out_dir(path: str | os.PathLike, option: str) -> Path:
    """Check that files can be written to a folder, which may have to be created.

    Args:
        path: the folder.
        option: name of the argument, for the error.

    Raises:
        ValueError: it is a file, or cannot be written to.
    """
    path = Path(path)
    _check_writable(path.absolute(), path, option)
    return path


def _check_writable(folder: Path, path: Path, option: str) -> None:
    existing = next(p for p in (folder, *folder.parents) if p.exists())
    if not existing.is_dir():
        raise ValueError(f'{option} {path}: {existing} is a file, not a folder')
    # root may write anywhere by its permissions, but no one can create files in /proc.
    if not os.access(existing, os.W_OK | os.X_OK) or existing.parts[1:2] == ('proc',):
        raise ValueError(f'{option} {path}: {existing} is not writable')
