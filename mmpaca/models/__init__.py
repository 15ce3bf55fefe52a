"""The PaCa-ViT backbone. It depends on torch, mmengine and mmcv's basic layers only."""

from .archs import ARCHS, list_models
from .attention import PatchToClusterAttention
from .paca_seg_head import PaCaSegHead
from .paca_vit import PaCaBlock, PaCaStage, PaCaViT
from .seg_losses import SegCrossEntropyLoss
from .teacher import ClusteringTeacher

__all__ = [
    'ARCHS',
    'ClusteringTeacher',
    'PaCaBlock',
    'PaCaSegHead',
    'PaCaStage',
    'PaCaViT',
    'PatchToClusterAttention',
    'SegCrossEntropyLoss',
    'list_models',
]
