"""Checks of a checkpoint's container before anything in it is read."""

import os
import struct
import tarfile
import zipfile
import zlib
from typing import IO

import torch

_ZIP = b'PK\x03\x04'
# The first pickle of a file by torch < 1.6: the number 0x1950a86a20f9469cfc6c.
_LEGACY = b'\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.'
# The end of a zip file: (signature, 4 numbers, size and offset of its directory, length of a comment).
_END = struct.Struct('<4s4H2LH')
_LOCATOR = struct.Struct('<4sLQL')  # before it in large archives: (signature, disk, offset, disks)
_END64 = struct.Struct('<4sQ2H2L4Q')  # before that: ends with size and offset of the directory
_SATURATED = 0xFFFFFFFF  # see _END64


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
        for record in records:
            archive.open(record).close()  # checks what stands before its content
        _check_end(file, archive.start_dir)
    sizes = {record.filename.partition('/')[2]: record.file_size for record in records}
    file.seek(0)
    reader = torch._C.PyTorchFileReader(file)  # as torch.load sees it
    if sorted(reader.get_all_records()) != sorted(sizes):
        raise ValueError('it is an ambiguous zip archive')
    # torch.load looks at no checksum. torch may be set to write none.
    checks = torch.serialization.get_crc32_options()
    for record in records:
        content = reader.get_record(record.filename.partition('/')[2])
        if len(content) != record.file_size:
            raise ValueError('it is an ambiguous zip archive')
        if checks and zlib.crc32(content) != record.CRC:
            raise DamagedError(f'{record.filename} does not have its checksum')
    if 'constants.pkl' in sizes:
        raise ValueError('it is a TorchScript archive')
    prefix = 'data/'
    return {name.removeprefix(prefix): n for name, n in sizes.items() if name.startswith(prefix)}


def _check_end(file: IO[bytes], start: int) -> None:
    """Check that there is one directory only, where Python and torch find it in different ways.

    Args:
        file: zip archive.
        start: where Python found its directory.
    """
    end = file.seek(-_END.size, os.SEEK_END)
    signature, *_, size, offset, comment = _END.unpack(file.read(_END.size))
    whole = signature == b'PK\5\6' and comment == 0
    file.seek(max(end - _LOCATOR.size, 0))
    locator = file.read(_LOCATOR.size)
    if whole and locator.startswith(b'PK\6\7'):
        end -= _LOCATOR.size + _END64.size
        file.seek(max(end, 0))
        signature, *_, size64, offset64 = _END64.unpack(file.read(_END64.size))
        whole = signature == b'PK\6\6' and _LOCATOR.unpack(locator)[2] == end
        whole &= size in (size64, _SATURATED) and offset in (offset64, _SATURATED)
        size, offset = size64, offset64
    if not (whole and offset == start and offset + size == end):
        raise ValueError('it is an ambiguous zip archive')
