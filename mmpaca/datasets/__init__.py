"""Generated data. Real datasets are mmdet's and mmpretrain's."""

from .shapes import CLASSES, write_shapes

__all__ = ['CLASSES', 'write_shapes']
