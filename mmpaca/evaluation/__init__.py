"""Metrics."""

from .cluster_alignment_metric import ClusterAlignmentMetric
from .faster_coco_metric import FasterCOCOeval, FasterCocoMetric
from .instance_accuracy_metric import InstanceAccuracyMetric

__all__ = ['ClusterAlignmentMetric', 'FasterCOCOeval', 'FasterCocoMetric', 'InstanceAccuracyMetric']
