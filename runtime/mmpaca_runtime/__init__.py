"""Run the files that ``mmpaca export`` writes, without PyTorch."""

from .detector import Detector, ModelError
from .result import Result
from .version import __version__

__all__ = ['Detector', 'ModelError', 'Result', '__version__']
