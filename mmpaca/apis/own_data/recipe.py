"""Decisions about resolution, anchors and batch, each with its reason.

The numbers were chosen on blood cells (640x480, objects of 35 to 200 pixels) and nuclei (256x256 and
larger, objects of 10 to 90 pixels) on two CPU cores; see ``configs/real``.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from mmpaca.models.archs import ARCHS

from .statistics import Statistics

#: Size in the network's input of the smaller objects of the class with the smallest ones. Outlines
#: need more pixels than boxes.
SMALL_OBJECT = dict(detect=20, instance=24)
_NEEDED = dict(detect='boxes', instance='masks')
MAX_ZOOM = 2.0
MIN_LONG_SIDE = 256
MAX_LONG_SIDE = dict(cpu=1024, cuda=1333)  # of images that are scaled to one size
MAX_AREA = dict(cpu=400**2, cuda=1024**2)  # of entire images in training; larger ones are cropped
CROP = dict(cpu=320, cuda=800)
BATCH = dict(cpu=4, cuda=8)


@dataclass(frozen=True)
class Decision:
    """A value and why."""

    value: Any
    why: str


@dataclass(frozen=True)
class Recipe:
    """What the config says beside classes and paths; each value with its reason.

    Attributes:
        arch: name of a variant.
        zoom: factor of the image size; None if ``long_side`` is set.
        long_side: long side that every image is scaled to; None if ``zoom`` is set.
        crop: side of the random crops of training; None for entire images.
        flips: directions.
        grey: no change of saturation.
        anchor_scale: anchors have ``4 * scale`` pixels at stride 4.
        anchor_ratios: height / width.
        strides: of the neck's maps.
        max_per_img: largest number of detections in an image.
        proposals: RPN boxes per image in training.
        samples: of them, those that the box head learns from.
        batch_size: images.
    """

    arch: Decision
    zoom: Decision | None
    long_side: Decision | None
    crop: Decision
    flips: Decision
    grey: Decision
    anchor_scale: Decision
    anchor_ratios: Decision
    strides: Decision
    max_per_img: Decision
    proposals: Decision
    samples: Decision
    batch_size: Decision

    @property
    def resolution(self) -> float:
        """``zoom`` or ``long_side``."""
        return next(size.value for size in (self.zoom, self.long_side) if size)

    @property
    def in_channels(self) -> list[int]:
        """Channels of the backbone's maps."""
        return list(ARCHS[self.arch.value]['embed_dims'])


def decide(
    found: Statistics, task: str, arch: str, device: str, top_view: bool, shrink: float = 1.0
) -> Recipe:
    """Decide on a recipe.

    Args:
        found: statistics of the data.
        task: ``'detect'`` or ``'instance'``.
        arch: name of a variant.
        device: ``'cpu'`` or ``'cuda'``.
        top_view: images have no up and down.
        shrink: factor of the resolution, for lack of time.
    """
    long_sides = found.image_sizes.max(1)
    zoom = _zoom(found, task, float(np.median(long_sides)), shrink)
    one_size = long_sides.max() < 1.2 * long_sides.min()
    # Photographs of several cameras: objects grow with the image. Not so under one microscope.
    by_size = not one_size and found.relative_spread < 0.9
    limit = MAX_LONG_SIDE[device]
    long_side = round(min(limit, zoom * float(np.median(long_sides))) / 32) * 32
    factors = long_side / long_sides if by_size else np.full(len(long_sides), zoom)
    # Size of the objects in the network's input, with one factor for all.
    sizes = found.sizes * (long_side / float(np.median(long_sides)) if by_size else zoom)
    crop = _crop(found.image_sizes * factors[:, None], sizes, device)
    small = float(np.percentile(sizes, 5))
    scale = int(np.clip(small // 4, 2, 8))
    strides = [4, 8, 16, 32]
    large = float(np.percentile(sizes, 95))
    if large > 1.2 * scale * strides[-1]:
        strides.append(64)
    why_size = (
        f'the smaller {found.smallest_class} objects have {found.small:.0f} pixels, '
        f'{found.small * sizes[0] / found.sizes[0]:.0f} after scaling; about {SMALL_OBJECT[task]} '
        f'suffice for {_NEEDED[task]}, and smaller inputs train faster'
    )
    if shrink < 1:
        why_size += '; less here, as too few iterations fit into the time'
    ratios = [0.5, 1.0, 2.0]
    if found.elongated > 0.1:
        ratios = [0.25, *ratios, 4.0]
    median = float(np.median(found.per_image))
    most = max(100, -(-int(1.3 * found.max_per_image) // 50) * 50)
    crowded = median > 30
    return Recipe(
        Decision(arch, f'{dict(nano=1.0, micro=3.1)[arch]} M parameters, from random weights'),
        None if by_size else Decision(round(zoom, 3), why_size),
        Decision(long_side, f'objects are larger in larger images; {why_size}')
        if by_size
        else None,
        crop,
        _flips(top_view),
        Decision(found.grey, 'all channels are equal' if found.grey else 'colours vary a little'),
        Decision(
            scale, f'anchors from {4 * scale} pixels: 5 % of the objects are below {small:.0f}'
        ),
        Decision(
            ratios,
            f'{100 * found.elongated:.0f} % of the boxes are longer than three times their width',
        ),
        Decision(strides, f'95 % of the objects are below {large:.0f} pixels'),
        Decision(most, f'there are up to {found.max_per_image} objects in an image'),
        Decision(500 if crowded else 200, f'there are {median:.0f} objects in the median image'),
        Decision(128 if crowded else 64, f'there are {median:.0f} objects in the median image'),
        Decision(BATCH[device], f'for this {"CPU" if device == "cpu" else "GPU"}'),
    )


def _zoom(found: Statistics, task: str, long_side: float, shrink: float) -> float:
    """Return the factor that gives the small objects :data:`SMALL_OBJECT` pixels, within limits."""
    wanted = shrink * min(MAX_ZOOM, SMALL_OBJECT[task] / found.small)
    return min(MAX_ZOOM, max(wanted, MIN_LONG_SIDE / long_side))


def _crop(input_sizes: np.ndarray, objects: np.ndarray, device: str) -> Decision:
    height, width = np.percentile(input_sizes, 90, axis=0)
    area = f'inputs of {width:.0f}x{height:.0f}'
    if height * width <= MAX_AREA[device]:
        return Decision(None, f'{area} are trained on in whole')
    # A crop should hold most objects entirely.
    side = max(CROP[device], round(1.5 * float(np.percentile(objects, 95)) / 32) * 32)
    return Decision(side, f'{area} are large for this device: training takes parts of them')


def _flips(top_view: bool) -> Decision:
    if top_view:
        return Decision(['horizontal', 'vertical', 'diagonal'], '--top-view: no up and down')
    return Decision(
        ['horizontal'], "add 'vertical' and 'diagonal' (--top-view) if images have no up and down"
    )
