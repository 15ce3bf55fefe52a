"""Run the files that ``mmpaca export`` writes, without PyTorch."""

from .detector import Detector, ModelError
from .result import Result

__all__ = ['Detector', 'ModelError', 'Result']
__version__ = '0.2.0'  # the same as mmpaca's
