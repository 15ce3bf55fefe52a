"""Image files: search, decoding, detection of broken ones."""

import contextlib
import glob
import io
import os
import re
import stat
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import mmcv
import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError
from torchvision.datasets.folder import IMG_EXTENSIONS

MAX_PIXELS = 2**27  # 400 MB when decoded
# Final bytes of a complete file, for formats whose decoders accept truncated files.
_ENDS = {'JPEG': b'\xff\xd9', 'MPO': b'\xff\xd9', 'PNG': b'IEND'}
_TAIL = 4096  # bytes; cameras and editors append data after the end
MAX_BYTES = 2**30  # of an image file
# What libjpeg says of pixels that it made up, or of much data that it did not understand. Padding
# of a few bytes is common and harmless.
_DAMAGE = re.compile(
    r'premature end|bad huffman code|\d{3,} extraneous bytes before marker 0xd9', re.I
)


def find_images(
    arguments: Sequence[str | Path], suffixes: Sequence[str] = IMG_EXTENSIONS
) -> list[Path]:
    """Expand files, folders and globs, in this order.

    Args:
        arguments: a file is taken whatever its suffix; of a folder (not of its sub-folders) and
            of a glob's matches, the files with one of the suffixes.
        suffixes: lower case, with the dot.

    Raises:
        FileNotFoundError: an argument has no match.
    """
    found = []
    for argument in arguments:
        path = Path(argument)
        if path.is_file():
            found.append(path)
            continue
        candidates = path.iterdir() if path.is_dir() else glob.iglob(str(path), recursive=True)
        files = sorted(p for p in map(Path, candidates) if p.suffix.lower() in suffixes)
        if not files:
            raise FileNotFoundError(
                f'{str(argument)!r}: no such file, folder of images or glob with matches'
            )
        found += files
    return found


def check_images(paths: Sequence[Path]) -> None:
    """Decode all images once, before any work begins.

    Raises:
        ValueError: names every image that cannot be decoded, with the reason.
    """
    broken = []
    for path in paths:
        try:
            read_image(path)
        except ValueError as error:
            broken.append(str(error))
    if broken:
        raise ValueError('; '.join(broken))


def read_image(path: str | Path) -> np.ndarray:
    """Read an image file: (H, W, 3) uint8 BGR.

    Raises:
        OSError: the file cannot be read.
        ValueError: names the file and the reason why it cannot be decoded.
    """
    try:
        return decode(read_bytes(path))
    except ValueError as error:
        raise ValueError(f'{path} {error}') from None


def read_bytes(path: str | os.PathLike) -> bytes:
    """Read an image file.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is a device, a pipe or a folder, or larger than any image.
    """
    check_file(path)
    return Path(path).read_bytes()


def check_file(path: str | os.PathLike) -> None:
    """Check that reading a file ends, in time and memory; raises as :func:`read_bytes`."""
    status = os.stat(path)  # of what a link points to
    if not stat.S_ISREG(status.st_mode):
        raise ValueError('is not a file but a folder, a pipe or a device')
    if status.st_size > MAX_BYTES:
        raise ValueError(f'has {status.st_size} bytes, more than {MAX_BYTES}')


def is_outside(name: str) -> bool:
    """Return True if a file name, relative to a folder, leads out of that folder."""
    return os.path.isabs(name) or os.path.normpath(name).split(os.sep)[0] == os.pardir


def decode(
    content: bytes,
    size: tuple[int, int] | None = None,
    flag: str = 'color',
    backend: str = 'cv2',
    max_pixels: int = MAX_PIXELS,
) -> np.ndarray:
    """Decode an image file of any colour mode and bit depth.

    Grey, CMYK and 16-bit files become 8-bit BGR. The EXIF orientation is applied, unless the image
    has the annotated size only without it.

    Args:
        content: bytes of the file.
        size: (height, width) of the annotated image; None to accept any.
        flag: flag of mmcv.imfrombytes, e.g. ``'color'``.
        backend: backend of mmcv.imfrombytes.
        max_pixels: maximum number of pixels.

    Returns:
        (H, W, 3) uint8.

    Raises:
        ValueError: the image is truncated or damaged, cannot be decoded, is too large or has
            another size.
    """
    try:
        with Image.open(io.BytesIO(content)) as image:  # reads the header only
            kind, pixels = image.format, image.width * image.height
    except UnidentifiedImageError:
        raise ValueError('cannot be decoded: unknown image format') from None
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f'cannot be decoded: {error}') from error
    if pixels > max_pixels:
        raise ValueError(f'has {pixels} pixels, more than max_pixels={max_pixels}')
    if not _is_whole(content, _ENDS.get(kind, b'')):
        raise ValueError(f'is a truncated {kind} file of {len(content)} bytes')
    with _libjpeg_warnings() as warnings:
        image = mmcv.imfrombytes(content, flag=flag, backend=backend)
    damage = next(filter(_DAMAGE.search, warnings), None)
    if damage is not None:
        raise ValueError(f'is a damaged {kind} file: {damage}')
    if image is None:
        raise ValueError(f'is a {kind} file that cannot be decoded')
    if size is not None and image.shape[:2] != size and flag == 'color':
        image = mmcv.imfrombytes(content, flag='color_ignore_orientation', backend=backend)
    if size is not None and image.shape[:2] != size:
        height, width = image.shape[:2]
        raise ValueError(f'is {width}x{height}, its annotations are for {size[1]}x{size[0]}')
    return image


_capturing = threading.Lock()


@contextlib.contextmanager
def _libjpeg_warnings() -> Iterator[list[str]]:
    """Collect what libjpeg prints: OpenCV has no other sign of pixels that are made up.

    Whatever else is written to stderr in these milliseconds is written there afterwards.
    """
    lines: list[str] = []
    with _capturing:
        reader, writer = os.pipe()
        os.set_blocking(writer, False)  # what no longer fits is lost; nothing waits
        stderr = os.dup(2)
        os.dup2(writer, 2)
        os.close(writer)
        try:
            yield lines
        finally:
            os.dup2(stderr, 2)  # closes the pipe
            os.close(stderr)
            with open(reader, 'rb') as file:
                for line in file.read().decode(errors='replace').splitlines():
                    if 'jpeg' in line.lower():
                        lines.append(line)
                    else:
                        os.write(2, f'{line}\n'.encode())


def is_turned(content: bytes, size: tuple[int, int]) -> bool:
    """Return True if the EXIF orientation swaps height and width, and the annotations ignore it.

    Args:
        content: bytes of an image file that :func:`decode` accepts.
        size: (height, width) of the annotated image.
    """
    with Image.open(io.BytesIO(content)) as image:
        sideways = image.getexif().get(ExifTags.Base.Orientation, 1) >= 5
        return sideways and size == (image.height, image.width) and image.height != image.width


def _is_whole(content: bytes, end: bytes) -> bool:
    """Return True if a file ends with these bytes, or has all its pixels before appended data."""
    if end in content[-_TAIL:]:
        return True
    if end not in content:
        return False
    try:
        with Image.open(io.BytesIO(content)) as image:
            image.load()
    except Exception:  # decoders raise anything on arbitrary bytes
        return False
    return True
