"""What a model costs: multiply-accumulates, memory, time. Used by tools/analysis."""

from .cost import Cost, count_cost
from .zoo import PEERS, build_backbone, describe

__all__ = ['PEERS', 'Cost', 'build_backbone', 'count_cost', 'describe']
