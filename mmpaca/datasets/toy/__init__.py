"""Generated shapes and scikit-learn's digits, for demos and tests."""

from .digits import write_digits
from .shapes import CLASSES, write_shapes

__all__ = ['CLASSES', 'write_digits', 'write_shapes']
