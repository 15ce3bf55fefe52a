"""COCO dataset that skips broken parts, verified label maps, and toy datasets."""

from .coco import LoadVerifiedImageFromFile, TolerantCocoDataset
from .seg_maps import LoadVerifiedSegImage, LoadVerifiedSegMap, SegFileError
from .toy import CLASSES, write_digits, write_shapes

__all__ = [
    'CLASSES',
    'TolerantCocoDataset',
    'LoadVerifiedImageFromFile',
    'LoadVerifiedSegImage',
    'LoadVerifiedSegMap',
    'SegFileError',
    'write_digits',
    'write_shapes',
]
