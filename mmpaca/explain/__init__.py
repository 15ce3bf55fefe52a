"""See what a model sees: its clusters recorded, as pictures, as a page, as a number.

Only what needs no more than torch, numpy and mmengine is imported here: hooks of every run need it.
"""

from .metric import ClusterAlignmentMetric
from .recorder import BlockRecord, Recording, record

__all__ = ['BlockRecord', 'ClusterAlignmentMetric', 'Recording', 'record']
