"""Labels of any format in one form, and how labels find their images."""

import os
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import ExifTags, Image
from torchvision.datasets.folder import IMG_EXTENSIONS

#: Share of labels whose image may be missing; more is an error.
MAX_MISSING_SHARE = 0.05
_SPLITS = dict(
    train='train', training='train', val='val', valid='val', validation='val', test='test'
)
_SPLIT = re.compile(rf'(?:^|[_\W])({"|".join(_SPLITS)})(?=\d*(?:$|[_\W]))', re.IGNORECASE)


@dataclass
class LabelledObject:
    """One annotated object.

    Attributes:
        name: class name.
        bbox: left, top, width, height in pixels.
        segmentation: polygons or RLE as in COCO's format; None for a box only.
        ignored: neither learned nor counted in evaluation (COCO's crowds, VOC's difficult).
    """

    name: str
    bbox: tuple[float, float, float, float]
    segmentation: list | dict | None = None
    ignored: bool = False


@dataclass
class LabelledImage:
    """One image with its objects.

    Attributes:
        path: file.
        size: (height, width) in pixels; (0, 0) if the file cannot be read.
        objects: its objects.
        split: ``'train'``, ``'val'``, ``'test'`` or empty where the data does not say.
    """

    path: Path
    size: tuple[int, int]
    objects: list[LabelledObject]
    split: str = ''


@dataclass
class Labels:
    """All labels of a folder.

    Attributes:
        format: name in :data:`mmpaca.datasets.formats.FORMATS`.
        classes: class names in the order of the format's own list, or sorted.
        images: every labelled image.
        notes: sentences about what was left out or read in one of several possible ways.
    """

    format: str
    classes: list[str]
    images: list[LabelledImage]
    notes: list[str] = field(default_factory=list)


def files_below(root: Path, *suffixes: str) -> list[Path]:
    """Return the files below a folder with one of the suffixes, sorted.

    Hidden folders and ``work_dirs`` are skipped.
    """
    return sorted(path for path in _walk(root) if path.suffix.lower() in suffixes)


def _walk(root: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(root):
        folders[:] = [f for f in folders if not f.startswith('.') and f != 'work_dirs']
        yield from (Path(folder, name) for name in names if not name.startswith('.'))


def split_of(path: Path) -> str:
    """Return the split that a path names, e.g. ``'val'`` of ``valid/images/a.jpg``.

    Only whole words count, with digits after them: ``instances_train2017``, not ``trains``. The
    last one wins.
    """
    found = _SPLIT.findall(path.as_posix())
    return _SPLITS[found[-1].lower()] if found else ''


class ImageIndex:
    """The images below a folder, found by what label files say of them.

    Args:
        root: folder of images and labels.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.paths = files_below(root, *IMG_EXTENSIONS)
        self._by_name: dict[str, list[Path]] = defaultdict(list)
        self._by_stem: dict[str, list[Path]] = defaultdict(list)
        for path in self.paths:
            self._by_name[path.name].append(path)
            self._by_stem[path.stem].append(path)

    def find(self, name: str, label_file: Path) -> Path | None:
        """Find the image of a label file.

        Args:
            name: file name in the labels; folders, also Windows' and those of another machine, and
                a wrong suffix are accepted.
            label_file: file below the root; of several images of that name, the one of the same
                split in the nearest folder is taken.

        Returns:
            Its path; None if there is none.

        Raises:
            ValueError: several images fit equally well.
        """
        wanted = Path(name.replace('\\', '/'))
        found = self._by_name.get(wanted.name) or self._by_stem.get(wanted.stem, [])

        split = split_of(label_file.relative_to(self.root))

        def nearness(path: Path) -> tuple[int, bool, int]:
            return (
                _common(wanted.parts[::-1], path.parts[::-1]),
                split_of(path.relative_to(self.root)) == split,
                _common(label_file.parts, path.parts),
            )

        best = sorted(found, key=nearness)[-2:]
        if len(best) == 2 and nearness(best[0]) == nearness(best[1]):
            raise ValueError(
                f'{label_file} is about {name}, and {best[0]} and {best[1]} fit equally well: '
                'rename one of them'
            )
        return best[-1] if best else None


def _common(first: Sequence[str], second: Sequence[str]) -> int:
    pairs = zip(first, second, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(first), len(second)))


def check_missing(missing: Sequence[str], total: int, root: Path) -> list[str]:
    """Accept a few labels without an image.

    Args:
        missing: what has no image.
        total: number of labelled images.
        root: folder that was searched.

    Returns:
        A note, if any are missing.

    Raises:
        ValueError: more than :data:`MAX_MISSING_SHARE` are missing.
    """
    if not missing:
        return []
    counted = f'{len(missing)} of {total} labelled images are not below {root}, first {missing[0]}'
    if len(missing) > MAX_MISSING_SHARE * total:
        raise ValueError(f'{counted}: copy the images there, or delete labels without an image')
    return [f'{counted}; they are left out']


def image_size(path: Path) -> tuple[int, int]:
    """Return (height, width) as shown, EXIF orientation applied; (0, 0) if it cannot be read."""
    try:
        with Image.open(path) as image:  # reads the header only
            turned = image.getexif().get(ExifTags.Base.Orientation, 1) >= 5
            return (image.width, image.height) if turned else (image.height, image.width)
    except Exception:  # arbitrary bytes make decoders raise anything
        return (0, 0)


def box_of(points: Sequence[float]) -> tuple[float, float, float, float]:
    """Return the box (left, top, width, height) around x, y, x, y, ..."""
    xs, ys = points[::2], points[1::2]
    return (min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys))
