"""Metrics."""

from .cluster_alignment_metric import ClusterAlignmentMetric
from .faithfulness_metric import FaithfulnessMetric
from .faster_coco_metric import FasterCOCOeval, FasterCocoMetric
from .instance_accuracy_metric import InstanceAccuracyMetric

__all__ = [
    'ClusterAlignmentMetric',
    'FaithfulnessMetric',
    'FasterCOCOeval',
    'FasterCocoMetric',
    'InstanceAccuracyMetric',
]
