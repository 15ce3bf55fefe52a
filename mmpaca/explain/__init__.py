"""See what a model sees: its clusters recorded, as pictures, as a page, as a number.

Imported with mmpaca, so only what needs no more than torch, numpy and mmengine is imported here.
"""

from .metric import ClusterAlignmentMetric
from .recorder import BlockRecord, Recording, record

__all__ = ['BlockRecord', 'ClusterAlignmentMetric', 'Recording', 'record']
