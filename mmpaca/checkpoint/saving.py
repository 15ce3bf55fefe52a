"""Atomic writes.

mmengine's local backend writes in place: a process killed during a save leaves a truncated
checkpoint under its final name.
"""

import contextlib
import errno
import os
from pathlib import Path

from mmengine.fileio import LocalBackend, register_backend

ATOMIC_BACKEND = 'mmpaca_atomic'
_TEMPORARY = '.part'


def write_atomically(path: str | os.PathLike, content: bytes) -> None:
    """Write a file atomically: its name has the old or the new content at any time.

    Writes a temporary file in the same folder, flushes it to disk and renames it. Then the folder
    is flushed, so that the rename survives a power failure.

    Args:
        path: file to write; its folder is created, a link is followed.
        content: content of the file.

    Raises:
        OSError: the write failed, e.g. no space left; the old content is unchanged. Or the name, or
            what it links to, is a device, a FIFO or a directory: it would be replaced.
    """
    path = os.path.realpath(path)
    if os.path.exists(path) and not os.path.isfile(path):
        raise OSError(errno.EINVAL, 'not a regular file, nothing is written', path)
    folder = os.path.dirname(path)
    os.makedirs(folder, exist_ok=True)
    temporary = f'{path}.{os.getpid()}{_TEMPORARY}'  # no other process writes into it
    try:
        file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        try:
            left = memoryview(content)
            while left:
                left = left[os.write(file, left) :]
            os.fsync(file)
        finally:
            os.close(file)
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.remove(temporary)
        raise OSError(
            error.errno,
            f'{error.strerror} while saving {len(content)} bytes; the previous file is unchanged',
            path,
        ) from error
    _sync_folder(folder)


def remove_leftovers(folder: str | os.PathLike) -> None:
    """Delete the temporary files of processes killed in :func:`write_atomically`."""
    for leftover in Path(folder).glob(f'*.pth*{_TEMPORARY}'):
        leftover.unlink(missing_ok=True)


def _sync_folder(folder: str) -> None:
    file = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


@register_backend(ATOMIC_BACKEND)
class AtomicBackend(LocalBackend):
    """mmengine's local file backend with atomic writes."""

    def put(self, obj: bytes, filepath: str | os.PathLike) -> None:
        """Write bytes; see :func:`write_atomically`."""
        write_atomically(filepath, obj)

    def put_text(self, obj: str, filepath: str | os.PathLike, encoding: str = 'utf-8') -> None:
        """Write text; see :func:`write_atomically`."""
        write_atomically(filepath, obj.encode(encoding))
