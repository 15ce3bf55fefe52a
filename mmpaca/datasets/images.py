"""Image files: finding them, and those that are not what they should be."""

import glob
import io
from collections.abc import Sequence
from pathlib import Path

import mmcv
import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError
from torchvision.datasets.folder import IMG_EXTENSIONS

MAX_PIXELS = 2**27  # 400 MB once decoded
# How a whole file ends, for the formats whose decoders fill up what is missing.
_ENDS = {'JPEG': b'\xff\xd9', 'MPO': b'\xff\xd9', 'PNG': b'IEND'}
_TAIL = 4096  # bytes; cameras and editors add some after the end, phones whole films


def find_images(arguments: Sequence[str]) -> list[Path]:
    """Files, the images of folders, and the matches of globs, in this order.

    Raises:
        FileNotFoundError: an argument is none of these, or a folder without images.
    """
    found = []
    for argument in arguments:
        path = Path(argument)
        if path.is_dir():
            matches = [p for p in sorted(path.iterdir()) if p.suffix.lower() in IMG_EXTENSIONS]
        elif path.is_file():
            matches = [path]
        else:
            matches = [Path(match) for match in sorted(glob.glob(argument, recursive=True))]
        if not matches:
            raise FileNotFoundError(
                f'{argument!r} is no image, no folder of images and no glob of any'
            )
        found += matches
    return found


def check_images(paths: Sequence[Path]) -> None:
    """Decode images before work begins on any.

    Raises:
        ValueError: names all that cannot be decoded, and why.
    """
    broken = []
    for path in paths:
        try:
            decode(path.read_bytes())
        except ValueError as error:
            broken.append(f'{path} {error}')
    if broken:
        raise ValueError('; '.join(broken))


def decode(
    content: bytes,
    size: tuple[int, int] | None = None,
    flag: str = 'color',
    backend: str = 'cv2',
    max_pixels: int = MAX_PIXELS,
) -> np.ndarray:
    """Decode an image file of any colours and depth.

    Grey, CMYK and 16-bit files become 8-bit BGR. A picture is turned as its EXIF tag says, unless
    it has the annotated size only without turning.

    Args:
        content: of the file.
        size: (height, width) that the annotations are for; None to take any.
        flag: mmcv's, e.g. ``'color'``.
        backend: mmcv's.
        max_pixels: of the largest image that is decoded.

    Returns:
        (H, W, 3) uint8.

    Raises:
        ValueError: it is truncated, cannot be decoded, is too large or of another size.
    """
    try:
        with Image.open(io.BytesIO(content)) as image:  # reads the header only
            kind, pixels = image.format, image.width * image.height
    except UnidentifiedImageError:
        raise ValueError('cannot be decoded: it is no image of a known format') from None
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f'cannot be decoded: {error}') from error
    if pixels > max_pixels:
        raise ValueError(f'has {pixels} pixels, more than max_pixels={max_pixels}')
    if not _is_whole(content, _ENDS.get(kind, b'')):
        raise ValueError(f'is a truncated {kind} file of {len(content)} bytes')
    image = mmcv.imfrombytes(content, flag=flag, backend=backend)
    if image is None:
        raise ValueError(f'is a {kind} file that cannot be decoded')
    if size is not None and image.shape[:2] != size and flag == 'color':
        image = mmcv.imfrombytes(content, flag='color_ignore_orientation', backend=backend)
    if size is not None and image.shape[:2] != size:
        height, width = image.shape[:2]
        raise ValueError(f'is {width}x{height}, its annotations are for {size[1]}x{size[0]}')
    return image


def is_turned(content: bytes, size: tuple[int, int]) -> bool:
    """Whether decoders that obey EXIF tags swap height and width of what is annotated unturned.

    Args:
        content: of an image file that :func:`decode` takes.
        size: (height, width) that the annotations are for.
    """
    with Image.open(io.BytesIO(content)) as image:
        sideways = image.getexif().get(ExifTags.Base.Orientation, 1) >= 5
        return sideways and size == (image.height, image.width) and image.height != image.width


def _is_whole(content: bytes, end: bytes) -> bool:
    """Whether a file ends with this or, before whatever follows, has all its pixels for PIL."""
    if end in content[-_TAIL:]:
        return True
    if end not in content:
        return False
    try:
        with Image.open(io.BytesIO(content)) as image:
            image.load()
    except Exception:  # whatever a decoder makes of arbitrary bytes
        return False
    return True
