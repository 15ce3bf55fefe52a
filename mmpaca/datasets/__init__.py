"""Generated and bundled data, and CIFAR-100 without downloads. The rest is mmdet's and mmpretrain's.

``cifar`` and ``tolerant`` are not imported here: they need mmpretrain, which is optional, and
mmdet's datasets. Configs name them.
"""

from .digits import write_digits
from .shapes import CLASSES, write_shapes

__all__ = ['CLASSES', 'write_digits', 'write_shapes']
