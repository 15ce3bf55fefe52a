"""PaCa-ViT itself. Needs torch and mmengine's and mmcv's basic layers, no detection code."""

from .archs import ARCHS, list_models
from .attention import PatchToClusterAttention
from .paca_vit import PaCaBlock, PaCaStage, PaCaViT
from .teacher import ClusteringTeacher

__all__ = [
    'ARCHS',
    'ClusteringTeacher',
    'PaCaBlock',
    'PaCaStage',
    'PaCaViT',
    'PatchToClusterAttention',
    'list_models',
]
