"""Masks of label formats as COCO's RLE."""

import numpy as np

from .labels import LabelledObject


def encode(name: str, mask: np.ndarray) -> LabelledObject:
    """Make an object of a mask, (height, width) bool."""
    from pycocotools import mask as coco_mask

    rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    left, top, width, height = (float(value) for value in coco_mask.toBbox(rle))
    rle['counts'] = rle['counts'].decode('ascii')
    return LabelledObject(name, (left, top, width, height), rle)


def paste(part: np.ndarray, left: int, top: int, size: tuple[int, int]) -> np.ndarray:
    """Put a mask of a part of an image into one of the entire image.

    Args:
        part: (h, w) bool.
        left: column of its first pixel.
        top: row of its first pixel.
        size: (height, width) of the image.
    """
    whole = np.zeros(size, bool)
    whole[max(top, 0) : top + part.shape[0], max(left, 0) : left + part.shape[1]] = part[
        max(-top, 0) : size[0] - top, max(-left, 0) : size[1] - left
    ]
    return whole
