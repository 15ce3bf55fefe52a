"""Images from files, folders, globs and videos."""

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

IMAGES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff', '.ppm', '.pgm')
VIDEOS = ('.mp4', '.avi', '.mov', '.mkv', '.webm', '.m4v')


def to_rgb(image: Image.Image) -> np.ndarray:
    """Return (H, W, 3) uint8 RGB, turned upright as its EXIF says."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith('I;16'):  # Pillow would cut off what is above 255
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return np.asarray(image.convert('RGB'))


def read_image(path: str | os.PathLike) -> np.ndarray:
    """Read an image: (H, W, 3) uint8 RGB.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no image, is broken or too large; one sentence.
    """
    try:
        with Image.open(path) as image:
            return to_rgb(image)
    except (FileNotFoundError, IsADirectoryError, PermissionError):
        raise
    except UnidentifiedImageError:
        raise ValueError(f'{path}: not an image') from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f'{path}: cannot be decoded: {error}') from None


def find_files(inputs: Sequence[str]) -> list[Path]:
    """Expand files, folders and globs.

    Raises:
        FileNotFoundError: an input has no match.
        ImportError: there are videos, and PyAV is not installed.
    """
    files: list[Path] = []
    for text in inputs:
        path = Path(text)
        if path.is_file():
            files.append(path)
            continue
        names = path.iterdir() if path.is_dir() else map(Path, glob.iglob(text, recursive=True))
        found = sorted(name for name in names if name.suffix.lower() in IMAGES + VIDEOS)
        if not found:
            raise FileNotFoundError(
                f'{text!r}: no such file, folder of images or glob with matches'
            )
        files += found
    if any(is_video(path) for path in files):
        try:
            import av  # noqa: F401
        except ImportError:
            raise ImportError(
                "videos need PyAV; run: pip install 'mmpaca-runtime[video]'"
            ) from None
    return files


def is_video(path: Path) -> bool:
    """Tell videos by their suffix."""
    return path.suffix.lower() in VIDEOS


def read_frames(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Names and images, (H, W, 3) uint8 RGB, of a file: one, or each frame of a video.

    Raises:
        OSError, ValueError: the file cannot be read; one sentence.
    """
    if not is_video(path):
        yield path.stem, read_image(path)
        return
    import av

    try:
        with av.open(str(path)) as video:
            for index, frame in enumerate(video.decode(video=0)):
                yield f'{path.stem}_{index:06d}', frame.to_ndarray(format='rgb24')
    except (av.error.FFmpegError, IndexError) as error:  # IndexError: it has sound only
        raise ValueError(f'{path}: cannot be decoded: {error}') from None
