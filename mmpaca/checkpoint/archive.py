"""Checks of a checkpoint's container before anything in it is read."""

import os
import tarfile
import zipfile
from typing import IO

import torch

_ZIP = b'PK\x03\x04'
# The first pickle of a file by torch < 1.6: the number 0x1950a86a20f9469cfc6c.
_LEGACY = b'\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.'


class DamagedError(ValueError):
    """A record of a checkpoint does not have its checksum."""


def storage_sizes(file: IO[bytes]) -> dict[str, int] | None:
    """Check that a file is what ``torch.save`` writes, whole, and no larger than it looks.

    Args:
        file: open at its beginning; left there.

    Returns:
        Bytes of each storage; None for the format of torch < 1.6, which does not say.

    Raises:
        DamagedError: a record does not have its checksum.
        ValueError, zipfile.BadZipFile: it is truncated, compressed, a TorchScript archive, or
            something else.
    """
    start = file.read(len(_LEGACY))
    file.seek(0)
    if start.startswith(_ZIP):
        sizes = _check_zip(file)
    elif start != _LEGACY:
        raise ValueError(f'it starts with {start[:8]!r}')
    elif tarfile.is_tarfile(file):  # torch would unpack it
        raise ValueError('it is a tar archive')
    else:
        sizes = None
    file.seek(0)
    return sizes


def _check_zip(file: IO[bytes]) -> dict[str, int]:
    with zipfile.ZipFile(file) as archive:
        records = archive.infolist()
        for record in records:
            if record.compress_type != zipfile.ZIP_STORED or record.flag_bits & 1:
                raise ValueError(f'{record.filename} is compressed, which torch.save never does')
        if sum(record.file_size for record in records) > os.fstat(file.fileno()).st_size:
            raise ValueError('its records overlap')
        if len({record.filename.lower() for record in records}) < len(records):
            raise ValueError('two of its records have one name')
        # torch.load looks at no checksum. torch may be set to write none.
        damaged = archive.testzip() if torch.serialization.get_crc32_options() else None
    if damaged:
        raise DamagedError(f'{damaged} does not have its checksum')
    sizes = {record.filename.partition('/')[2]: record.file_size for record in records}
    file.seek(0)
    seen = torch._C.PyTorchFileReader(file).get_all_records()  # as torch.load sees it
    if sorted(seen) != sorted(sizes):
        raise ValueError('it is an ambiguous zip archive')
    if 'constants.pkl' in sizes:
        raise ValueError('it is a TorchScript archive')
    prefix = 'data/'
    return {name.removeprefix(prefix): n for name, n in sizes.items() if name.startswith(prefix)}
