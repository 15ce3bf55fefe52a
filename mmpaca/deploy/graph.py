"""Which graph serves a model."""

import copy
from typing import Any

from mmcv.cnn import ConvModule
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

from .dense import DenseDetector
from .two_stage import TwoStageDetector


def build_graph(model: Any) -> nn.Module:
    """Build the inference of a model as a function of tensors.

    Args:
        model: detector of mmdet or classifier of mmpretrain; it is not changed.

    Returns:
        Module with ``outputs``, the names of what ``forward(image, scale)`` returns.
    """
    model = fold_batch_norms(copy.deepcopy(model).eval())
    if hasattr(model, 'roi_head'):
        return TwoStageDetector(model).eval()
    return DenseDetector(model).eval()


def fold_batch_norms(model: nn.Module) -> nn.Module:
    """Fold BatchNorm into the convolution before it, in every ConvModule, in place.

    Not only for speed: BatchNorm asks whether its input is empty, which no number of RoIs says
    while it is traced.
    """
    for module in model.modules():
        if not isinstance(module, ConvModule) or not module.with_norm:
            continue
        norm = module.norm
        after_conv = module.order.index('norm') == module.order.index('conv') + 1
        if isinstance(norm, _BatchNorm) and after_conv and type(module.conv) is nn.Conv2d:
            module.conv = fuse_conv_bn_eval(module.conv, norm)
            setattr(module, module.norm_name, nn.Identity())
    return model
