"""COCO datasets of which a part may be broken, and generated and bundled data."""

from .coco import LoadVerifiedImageFromFile, TolerantCocoDataset
from .toy import CLASSES, write_digits, write_shapes

__all__ = [
    'CLASSES',
    'TolerantCocoDataset',
    'LoadVerifiedImageFromFile',
    'write_digits',
    'write_shapes',
]
