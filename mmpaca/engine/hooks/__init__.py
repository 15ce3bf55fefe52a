"""Hooks of mmengine's Runner."""

from .bad_data_hook import BadDataSummaryHook
from .check_invalid_grad_hook import CheckInvalidGradHook
from .checkpoint_hook import AtomicCheckpointHook
from .cluster_information_hook import ClusterInformationHook
from .cluster_record_hook import ClusterRecordHook
from .cluster_visualization_hook import ClusterVisualizationHook
from .config_check_hook import ConfigCheckHook
from .preemption_hook import PreemptionHook
from .resume_check_hook import ResumeCheckHook
from .resume_hook import ExactResumeHook
from .seg_label_check_hook import SegLabelCheckHook
from .strict_load_hook import StrictLoadHook
from .tolerant_output_hook import TolerantOutputHook
from .work_dir_lock_hook import WorkDirLockHook

__all__ = [
    'AtomicCheckpointHook',
    'BadDataSummaryHook',
    'CheckInvalidGradHook',
    'ClusterInformationHook',
    'ClusterRecordHook',
    'ClusterVisualizationHook',
    'ConfigCheckHook',
    'ExactResumeHook',
    'PreemptionHook',
    'ResumeCheckHook',
    'SegLabelCheckHook',
    'StrictLoadHook',
    'TolerantOutputHook',
    'WorkDirLockHook',
]
