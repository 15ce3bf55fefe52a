"""What the recipe for a dataset depends on: sizes and numbers of images and objects."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from .prepare import PreparedData

_MIN_OBJECTS = 10  # of a class whose sizes count
_SAMPLE = 20  # images that are decoded for their colours


@dataclass(frozen=True)
class Statistics:
    """Sizes and numbers of images and objects.

    The size of an object is the square root of its box's area.

    Attributes:
        num_images: images of train and val.
        image_sizes: (N, 2) height and width of the training images.
        counts: objects per class in training.
        sizes: (K,) sizes of all training objects in pixels.
        small: first quartile of the sizes of the class with the smallest objects.
        smallest_class: its name.
        relative_spread: standard deviation of the log of sizes relative to their images, divided by
            that of sizes in pixels: below 1 if objects are larger in larger images.
        elongated: share of objects that are more than three times as long as wide, or the reverse.
        per_image: (N,) objects of each training image.
        max_per_image: largest number of objects in an image, val included.
        grey: all of some images have equal channels.
    """

    num_images: dict[str, int]
    image_sizes: np.ndarray
    counts: dict[str, int]
    sizes: np.ndarray
    small: float
    smallest_class: str
    relative_spread: float
    elongated: float
    per_image: np.ndarray
    max_per_image: int
    grey: bool


def measure_data(data: PreparedData) -> Statistics:
    """Measure a dataset.

    Raises:
        ValueError: images have 16 bits a channel of which only the lower ones are used.
    """
    train, val = (json.loads((data.ann_dir / f'{s}.json').read_bytes()) for s in ('train', 'val'))
    sides = {image['id']: (image['height'], image['width']) for image in train['images']}
    wh = np.array([one['bbox'][2:] for one in train['annotations']], float)
    sizes = np.sqrt(wh.prod(1))
    labels = np.array([one['category_id'] - 1 for one in train['annotations']])
    long_sides = np.array([max(sides[one['image_id']]) for one in train['annotations']])
    smallest = {
        name: float(np.percentile(sizes[labels == label], 25))
        for label, name in enumerate(data.classes)
        if (labels == label).sum() >= min(_MIN_OBJECTS, len(labels) / len(data.classes) / 2)
    }
    name = min(smallest, key=smallest.__getitem__)
    spread = np.log(sizes).std()
    ratio = wh.max(1) / wh.min(1)
    paths = [data.root / image['file_name'] for image in train['images']]
    _check_bits(paths)
    return Statistics(
        dict(train=len(train['images']), val=len(val['images'])),
        np.array(list(sides.values())),
        {one: int((labels == label).sum()) for label, one in enumerate(data.classes)},
        sizes,
        smallest[name],
        name,
        float(np.log(sizes / long_sides).std() / spread) if spread > 0 else 1.0,
        float((ratio > 3).mean()),
        _per_image(train),
        int(max(_per_image(train).max(), _per_image(val).max())),
        all(map(_is_grey, _spaced(paths))),
    )


def _per_image(coco: dict) -> np.ndarray:
    counts = dict.fromkeys((image['id'] for image in coco['images']), 0)
    for one in coco['annotations']:
        counts[one['image_id']] += 1
    return np.array(list(counts.values()))


def _spaced(paths: Sequence[Path]) -> Sequence[Path]:
    return paths[:: max(1, len(paths) // _SAMPLE)][:_SAMPLE]


def _is_grey(path: Path) -> bool:
    with Image.open(path) as image:
        if image.mode in ('1', 'L', 'LA') or image.mode.startswith('I'):
            return True
    pixels = cv2.imread(str(path))
    return pixels is not None and not np.ptp(pixels, axis=2).any()


def _check_bits(paths: Sequence[Path]) -> None:
    """Refuse 16-bit images that are nearly black once 8 bits of each pixel are dropped."""
    for path in _spaced(paths):
        with Image.open(path) as image:
            deep = image.mode.startswith('I') or image.mode == 'F'
        pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED) if deep else None
        if pixels is not None and pixels.dtype != np.uint8 and pixels.max() < 2**14:
            raise ValueError(
                f'{path} has {8 * pixels.dtype.itemsize} bits a pixel with values up to '
                f'{pixels.max():g}; training reads the upper 8 of 16 bits, which leaves a nearly '
                'black image: convert the images to 8 bits, brightest value to 255'
            )
