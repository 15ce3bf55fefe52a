"""Cost of a model: multiply-accumulates, memory and time."""

from .cost import Cost, count_cost
from .zoo import PEERS, build_backbone, parse_backbone

__all__ = ['PEERS', 'Cost', 'build_backbone', 'count_cost', 'parse_backbone']
