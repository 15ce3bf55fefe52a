"""Images from files, folders, globs and videos."""

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

IMAGES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff', '.ppm', '.pgm')
VIDEOS = ('.mp4', '.avi', '.mov', '.mkv', '.webm', '.m4v')


def to_array(image: str | os.PathLike | Image.Image | np.ndarray) -> np.ndarray:
    """Return (H, W, 3) uint8 RGB, turned upright as EXIF says.

    Raises:
        OSError: the file is missing or must not be read.
        ValueError: no image, a broken, empty or too large one, or pixels of another kind; one
            sentence.
    """
    if isinstance(image, np.ndarray):
        if image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3 and image.size:
            return image
        raise ValueError(f'an image is (H, W, 3) uint8 RGB, not {image.shape} {image.dtype}')
    if isinstance(image, Image.Image):
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith('I;16'):  # Pillow would cut off what is above 255
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        if image.mode in 'IF' or 0 in image.size:
            raise ValueError(f'{image.mode} image of {image.size}: 8 or 16 bits are read')
        return np.asarray(image.convert('RGB'))
    try:
        with Image.open(image) as opened:
            return to_array(opened)
    except (FileNotFoundError, IsADirectoryError, PermissionError):
        raise
    except UnidentifiedImageError:
        raise ValueError(f'{image}: not an image') from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f'{image}: cannot be decoded: {error}') from None


def find_files(inputs: Sequence[str]) -> list[Path]:
    """Expand files, folders and globs.

    Raises:
        FileNotFoundError: an input has no match.
    """
    files: list[Path] = []
    for text in inputs:
        path = Path(text)
        names = path.iterdir() if path.is_dir() else map(Path, glob.iglob(text, recursive=True))
        found = sorted(name for name in names if name.suffix.lower() in IMAGES + VIDEOS)
        found = [path] if path.is_file() else found
        if not found:
            raise FileNotFoundError(f'{text!r}: no such file, folder of images or matching glob')
        files += found
    return files


def read_frames(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Names and images, (H, W, 3) uint8 RGB, of a file: one, or each frame of a video.

    Raises:
        OSError, ValueError: the file cannot be read, or is a video without PyAV; one sentence.
    """
    if path.suffix.lower() not in VIDEOS:
        yield path.stem, to_array(path)
        return
    try:
        import av
    except ImportError:
        raise ValueError(f"{path}: run: pip install 'mmpaca-runtime[video]'") from None
    try:
        with av.open(str(path)) as video:
            for index, frame in enumerate(video.decode(video=0)):
                yield f'{path.stem}_{index:06d}', frame.to_ndarray(format='rgb24')
    except (av.error.FFmpegError, IndexError) as error:  # IndexError: sound only
        raise ValueError(f'{path}: cannot be decoded: {error}') from None
