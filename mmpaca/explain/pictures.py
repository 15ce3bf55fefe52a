"""Parts of pictures: heat maps, segmentation by cluster, outlines, captions."""

import functools
import os
from collections.abc import Sequence

import cv2
import matplotlib as mpl
import numpy as np
from PIL import Image, ImageDraw, ImageFont

# Okabe and Ito's colours, distinguishable with any kind of colour vision; RGB.
PALETTE = np.array(
    [
        (230, 159, 0),
        (86, 180, 233),
        (0, 158, 115),
        (240, 228, 66),
        (0, 114, 178),
        (213, 94, 0),
        (204, 121, 167),
    ],
    np.uint8,
)
_TILE = 320  # height of a picture in a row, pixels
_CAPTION = 24
_LEAST_TOP = 4  # times the mean of a map


@functools.cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib ships; covers Latin, Greek and Cyrillic letters."""
    return ImageFont.truetype(os.path.join(mpl.get_data_path(), 'fonts/ttf/DejaVuSans.ttf'), size)


def heat_map(image: np.ndarray, heat: np.ndarray, opacity: float = 0.85) -> np.ndarray:
    """Lay heat over a grey image, in the colour map cividis, readable with any colour vision.

    Where there is no heat the grey image remains.

    Args:
        image: (height, width, 3) uint8 RGB.
        heat: (height, width) >= 0. Colour and opacity follow its square root, because clusters are
            often sharp peaks on a wide ground. They end at the maximum, but not below four times
            the mean: a flat map looks flat.
        opacity: opacity at the maximum.

    Returns:
        (height, width, 3) uint8 RGB.
    """
    scaled = np.sqrt(heat / max(float(heat.max()), _LEAST_TOP * float(heat.mean()), 1e-12))
    levels = np.round(255 * scaled).astype(np.uint8)
    colours = cv2.applyColorMap(levels, cv2.COLORMAP_CIVIDIS)[..., ::-1]
    return _blend(0.8 * _grey(image), colours, opacity * scaled[..., None])


def cluster_colours(order: Sequence[int]) -> np.ndarray:
    """Return the RGB colour of each cluster, (M, 3) uint8.

    Args:
        order: all clusters by strength. The first seven get the colours of :data:`PALETTE`, in
            this order, the others shades of grey.
    """
    rank = np.argsort(order)
    shades = (70 + 37 * rank % 120).astype(np.uint8)
    colours = np.repeat(shades[:, None], 3, 1)
    strong = np.asarray(order[: len(PALETTE)])
    colours[strong] = PALETTE[: len(strong)]
    return colours


def segmentation(
    image: np.ndarray, labels: np.ndarray, order: Sequence[int], opacity: float = 0.65
) -> np.ndarray:
    """Colour each pixel of a grey image by its cluster.

    Args:
        image: (height, width, 3) uint8 RGB.
        labels: (height, width) cluster of each pixel, -1 for none.
        order: all clusters by strength, see :func:`cluster_colours`.
        opacity: opacity of the colours.

    Returns:
        (height, width, 3) uint8 RGB.
    """
    # On a coloured image, shades of grey would take its hues.
    out = _blend(_grey(image), cluster_colours(order)[labels], opacity)
    out[labels < 0] = image[labels < 0]
    return out


def tile_row(images: Sequence[np.ndarray], captions: Sequence[str]) -> np.ndarray:
    """Put pictures of one size side by side, each below its caption.

    Small images are enlarged, so that patches can be seen; large ones are reduced.

    Args:
        images: each (height, width, 3) uint8 RGB.
        captions: one per image.

    Returns:
        (H, W, 3) uint8 RGB; H is the same for all rows.
    """
    tiles = []
    for image, caption in zip(images, captions, strict=True):
        width = max(1, round(image.shape[1] * _TILE / image.shape[0]))
        shrink = image.shape[0] > _TILE
        how = cv2.INTER_AREA if shrink else cv2.INTER_NEAREST
        tile = cv2.resize(np.ascontiguousarray(image), (width, _TILE), interpolation=how)
        head = Image.new('RGB', (width, _CAPTION), 'white')
        ImageDraw.Draw(head).text((4, _CAPTION / 2), caption, 'black', font(13), anchor='lm')
        tiles.append(np.vstack([np.asarray(head), tile]))
        tiles.append(np.full((_CAPTION + _TILE, 4, 3), 255, np.uint8))
    return np.hstack(tiles[:-1])


def stack_rows(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Stack rows of pictures, each (H, W, 3); shorter ones are padded with white."""
    width = max(row.shape[1] for row in rows)
    return np.vstack(
        [
            np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0)), constant_values=255)
            for row in rows
        ]
    )


def outline_mask(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Draw a region's border on a copy of an image, white between black.

    Small images are enlarged first, so that the line is thin beside the region.

    Args:
        image: (height, width, 3) uint8 RGB.
        mask: (height, width) bool.

    Returns:
        (k * height, k * width, 3) uint8 RGB with an integer k.
    """
    times = -(-_TILE // image.shape[0])
    image, mask = (a.repeat(times, 0).repeat(times, 1) for a in (image, mask))
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    out = np.ascontiguousarray(image).copy()
    thick = max(1, round(image.shape[0] / _TILE))
    cv2.drawContours(out, contours, -1, (0, 0, 0), 3 * thick)
    cv2.drawContours(out, contours, -1, (255, 255, 255), thick)
    return out


def _grey(image: np.ndarray) -> np.ndarray:
    """Convert (height, width, 3) uint8 RGB to (height, width, 1) uint8."""
    return cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY)[..., None]


def _blend(image: np.ndarray, colours: np.ndarray, opacity: float | np.ndarray) -> np.ndarray:
    return np.round(image * (1 - opacity) + colours * opacity).astype(np.uint8)
