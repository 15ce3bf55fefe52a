"""Atomic writes.

mmengine's local backend writes in place: a process killed during a save leaves a truncated
checkpoint under its final name.
"""

import contextlib
import errno
import hashlib
import os
import re
from pathlib import Path

from mmengine.fileio import LocalBackend, register_backend

ATOMIC_BACKEND = 'mmpaca_atomic'
_TEMPORARY = '.part'
DIGEST = 'last_checkpoint.sha256'
_PART, _MAX_DIGEST = 2**20, 2**13


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


def sha256_of(path: str | os.PathLike) -> str:
    """SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while part := file.read(_PART):
            digest.update(part)
    return digest.hexdigest()


def record_digest(folder: str | os.PathLike, path: str | os.PathLike) -> None:
    """Write ``last_checkpoint.sha256``: the digest of a checkpoint in the format of sha256sum.

    mmengine reads the whole of ``last_checkpoint`` as a path, so it has a file of its own.

    Args:
        folder: work directory.
        path: checkpoint, named relative to it: ``sha256sum -c last_checkpoint.sha256`` checks it.
    """
    name = os.path.relpath(os.path.realpath(path), os.path.realpath(folder))
    write_atomically(Path(folder, DIGEST), f'{sha256_of(path)}  {name}\n'.encode())


def read_digest(folder: str | os.PathLike) -> tuple[str, str] | None:
    """Read ``last_checkpoint.sha256``: digest and file name without folder; None if there is none.

    Raises:
        ValueError: it is not in the format of sha256sum.
    """
    path = os.path.join(folder, DIGEST)
    if not os.path.lexists(path):
        return None
    content = b''
    if os.path.isfile(path):  # opening a FIFO would wait for ever
        with open(path, 'rb') as file:
            content = file.read(_MAX_DIGEST)
    match = re.fullmatch(rb'([0-9a-f]{64}) [ *]([^\n\0]+)\n?', content)
    if match is None:
        raise ValueError(f'{path} is not in the format of sha256sum')
    return match[1].decode(), os.path.basename(os.fsdecode(match[2]))


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
