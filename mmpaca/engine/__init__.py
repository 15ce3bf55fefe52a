"""mmengine hooks, and a constructor of optimizer wrappers."""

from .bad_data_hook import BadDataHook
from .checkpoint_hook import CheckpointHook
from .cluster_record_hook import ClusterRecordHook
from .cluster_visualization_hook import ClusterVisualizationHook
from .evaluator_check_hook import EvaluatorCheckHook
from .finite_hook import FiniteHook
from .layer_decay import LayerDecayOptimWrapperConstructor
from .neck_hook import NeckHook
from .resume_hook import ResumeHook
from .strict_load_hook import StrictLoadHook

__all__ = [
    'BadDataHook',
    'CheckpointHook',
    'ClusterRecordHook',
    'ClusterVisualizationHook',
    'EvaluatorCheckHook',
    'FiniteHook',
    'LayerDecayOptimWrapperConstructor',
    'NeckHook',
    'ResumeHook',
    'StrictLoadHook',
]
