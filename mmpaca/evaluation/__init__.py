"""Metrics."""

from .cluster_alignment_metric import ClusterAlignmentMetric
from .faster_coco_metric import FasterCOCOeval, FasterCocoMetric

__all__ = ['ClusterAlignmentMetric', 'FasterCOCOeval', 'FasterCocoMetric']
