"""Files that appear complete or not at all.

mmengine's local backend writes in place: a process killed in the middle of a save leaves half a
checkpoint under the name of a whole one.
"""

import contextlib
import os
from pathlib import Path

from mmengine.fileio import LocalBackend, register_backend

ATOMIC_BACKEND = 'mmpaca_atomic'
_TEMPORARY = '.part'


def write_atomically(path: str | os.PathLike, content: bytes) -> None:
    """Write a file so that at any moment its name stands for the old or for the new content.

    Written beside the target, flushed to the disk, renamed over it; then the folder is flushed,
    so that the rename survives a power failure too.

    Args:
        path: the folder is created where needed; a link is followed.
        content: the whole file.

    Raises:
        OSError: what went wrong, e.g. no space left; the old content is still there.
    """
    path = os.path.realpath(path)
    folder = os.path.dirname(path)
    os.makedirs(folder, exist_ok=True)
    temporary = path + _TEMPORARY
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
            f'{error.strerror} while saving {len(content)} bytes; what was saved before is whole',
            path,
        ) from error
    _sync_folder(folder)


def remove_leftovers(folder: str | os.PathLike) -> None:
    """Delete what a process killed in :func:`write_atomically` left behind."""
    for leftover in Path(folder).glob(f'*.pth{_TEMPORARY}'):
        leftover.unlink(missing_ok=True)


def _sync_folder(folder: str) -> None:
    file = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


@register_backend(ATOMIC_BACKEND)
class AtomicBackend(LocalBackend):
    """mmengine's local file backend with writes that are complete or do not happen."""

    def put(self, obj: bytes, filepath: str | os.PathLike) -> None:
        """Write bytes; see :func:`write_atomically`."""
        write_atomically(filepath, obj)

    def put_text(self, obj: str, filepath: str | os.PathLike, encoding: str = 'utf-8') -> None:
        """Write text; see :func:`write_atomically`."""
        write_atomically(filepath, obj.encode(encoding))
