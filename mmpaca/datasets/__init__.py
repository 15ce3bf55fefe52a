"""Generated and bundled data, and CIFAR-100 without downloads. The rest is mmdet's and mmpretrain's.

``cifar`` is not imported here: it needs mmpretrain, which is optional, and is found through the
registry.
"""

from .digits import write_digits
from .shapes import CLASSES, write_shapes

__all__ = ['CLASSES', 'write_digits', 'write_shapes']
