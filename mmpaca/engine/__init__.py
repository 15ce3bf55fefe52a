"""mmengine hooks."""

from .cluster_record_hook import ClusterRecordHook
from .cluster_visualization_hook import ClusterVisualizationHook
from .strict_load_hook import StrictLoadHook

__all__ = ['ClusterRecordHook', 'ClusterVisualizationHook', 'StrictLoadHook']
