"""Images to predict, one after the other: from image files and from videos."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import mmcv
import numpy as np
from torchvision.datasets.folder import IMG_EXTENSIONS

from mmpaca.datasets.images import find_images, read_image

VIDEO_EXTENSIONS = ('.avi', '.m4v', '.mkv', '.mov', '.mp4', '.mpeg', '.mpg', '.webm', '.wmv')
_FPS = 25.0  # of videos that do not state theirs


@dataclass(frozen=True)
class Source:
    """An image file or a video.

    Attributes:
        path: the file.
        name: unique name of its outputs, without suffix.
    """

    path: Path
    name: str

    @property
    def is_video(self) -> bool:
        """True for a video, told by its suffix."""
        return self.path.suffix.lower() in VIDEO_EXTENSIONS


@dataclass(frozen=True)
class Frame:
    """An image, or one frame of a video.

    Attributes:
        source: the file that it is from.
        image: (height, width, 3) uint8 BGR.
        index: number of the frame in its video, from 0; None for an image.
        fps: frames per second of the video.
    """

    source: Source
    image: np.ndarray
    index: int | None = None
    fps: float = _FPS

    @property
    def file_name(self) -> str:
        """Path of the image as given; a frame's is ``VIDEO/000012.jpg``, as CocoVID has it."""
        path = self.source.path.as_posix()
        return path if self.index is None else f'{path}/{self.index:06d}.jpg'


def find_sources(arguments: Sequence[str | Path]) -> list[Source]:
    """Find images and videos.

    The outputs of ``a/cat.jpg`` are called ``cat``, those of ``b/cat.jpg`` beside it ``cat_2``.

    Args:
        arguments: files, folders and globs, see :func:`mmpaca.datasets.images.find_images`.

    Raises:
        FileNotFoundError: an argument has no match.
    """
    sources = []
    taken: set[str] = set()
    for path in find_images(arguments, (*IMG_EXTENSIONS, *VIDEO_EXTENSIONS)):
        name, number = path.stem, 1
        while name.lower() in taken:  # some file systems ignore case
            number += 1
            name = f'{path.stem}_{number}'
        taken.add(name.lower())
        sources.append(Source(path, name))
    return sources


def count_frames(sources: Sequence[Source]) -> int:
    """Count images and frames; a video's number is what its header states."""
    return sum(
        max(0, mmcv.VideoReader(str(source.path)).frame_cnt)
        if source.is_video and source.path.is_file()
        else 1
        for source in sources
    )


def read_frames(sources: Sequence[Source], broken: list[str]) -> Iterator[Frame]:
    """Read all images and frames, one at a time.

    Args:
        sources: image files and videos.
        broken: filled with a message for each file that cannot be read; the others go on.
    """
    for source in sources:
        if source.is_video:
            yield from _read_video(source, broken)
            continue
        try:
            image = read_image(source.path)
        except (OSError, ValueError) as error:
            broken.append(str(error))
            continue
        yield Frame(source, image)


def _read_video(source: Source, broken: list[str]) -> Iterator[Frame]:
    video = mmcv.VideoReader(str(source.path), cache_capacity=1)
    fps = video.fps if 0 < video.fps < 1000 else _FPS
    index = -1
    for index, image in enumerate(video):
        yield Frame(source, image, index, fps)
    if index < 0:
        broken.append(f'{source.path} cannot be decoded: no frame of this video can be read')
