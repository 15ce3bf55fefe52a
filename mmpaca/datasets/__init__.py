"""COCO dataset that skips broken parts, and toy datasets."""

from .coco import LoadVerifiedImageFromFile, TolerantCocoDataset
from .toy import CLASSES, write_digits, write_shapes

__all__ = [
    'CLASSES',
    'TolerantCocoDataset',
    'LoadVerifiedImageFromFile',
    'write_digits',
    'write_shapes',
]
