"""Pictures of clusters: heat maps, hard segmentation, what a detection looked at."""

from collections.abc import Sequence

import cv2
import numpy as np

# Okabe and Ito's colours, told apart by people with any kind of colour vision; RGB.
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


def heat_map(image: np.ndarray, heat: np.ndarray, opacity: float = 0.65) -> np.ndarray:
    """Lay heat over an image in grey; cividis, the same to people with any colour vision.

    Args:
        image: (height, width, 3) uint8 RGB.
        heat: (height, width) >= 0; colours follow its square root, relative to the maximum, for
            clusters are often sharp peaks on a wide ground.
        opacity: of the heat.

    Returns:
        (height, width, 3) uint8 RGB.
    """
    scaled = np.round(255 * np.sqrt(heat / max(float(heat.max()), 1e-12))).astype(np.uint8)
    colours = cv2.applyColorMap(scaled, cv2.COLORMAP_CIVIDIS)[..., ::-1]
    grey = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY)[..., None]
    return _blend(grey, colours, opacity)


def cluster_colours(order: Sequence[int]) -> np.ndarray:
    """RGB of each cluster, (M, 3) uint8.

    Args:
        order: all clusters by strength: the first seven get the colours of :data:`PALETTE`, in
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
    """Colour each pixel by its cluster.

    Args:
        image: (height, width, 3) uint8 RGB.
        labels: (height, width) cluster of each pixel, -1 for none.
        order: all clusters by strength, as for :func:`cluster_colours`.
        opacity: of the colours.

    Returns:
        (height, width, 3) uint8 RGB.
    """
    out = _blend(image, cluster_colours(order)[labels], opacity)
    out[labels < 0] = image[labels < 0]
    return out


def tile_row(images: Sequence[np.ndarray], captions: Sequence[str]) -> np.ndarray:
    """Pictures of one size side by side, each below its caption.

    Small images are enlarged, so that patches can be seen; large ones are reduced.

    Args:
        images: each (height, width, 3) uint8 RGB.
        captions: as many.

    Returns:
        (H, W, 3) uint8 RGB; all rows have one height.
    """
    tiles = []
    for image, caption in zip(images, captions, strict=True):
        width = max(1, round(image.shape[1] * _TILE / image.shape[0]))
        shrink = image.shape[0] > _TILE
        how = cv2.INTER_AREA if shrink else cv2.INTER_NEAREST
        tile = cv2.resize(np.ascontiguousarray(image), (width, _TILE), interpolation=how)
        head = np.full((_CAPTION, width, 3), 255, np.uint8)
        cv2.putText(
            head, caption, (4, 17), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA
        )
        tiles.append(np.vstack([head, tile]))
        tiles.append(np.full((_CAPTION + _TILE, 4, 3), 255, np.uint8))
    return np.hstack(tiles[:-1])


def stack_rows(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Rows of pictures, each (H, W, 3), below each other, the shorter filled up with white."""
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
        (k * height, k * width, 3) uint8 RGB with a whole k.
    """
    times = -(-_TILE // image.shape[0])
    image, mask = (a.repeat(times, 0).repeat(times, 1) for a in (image, mask))
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    out = np.ascontiguousarray(image).copy()
    thick = max(1, round(image.shape[0] / _TILE))
    cv2.drawContours(out, contours, -1, (0, 0, 0), 3 * thick)
    cv2.drawContours(out, contours, -1, (255, 255, 255), thick)
    return out


def _blend(image: np.ndarray, colours: np.ndarray, opacity: float) -> np.ndarray:
    return np.round(image * (1 - opacity) + colours * opacity).astype(np.uint8)
