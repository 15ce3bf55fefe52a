"""Count the cost of the entire model of a config, without dataset and weights."""

from typing import TYPE_CHECKING, Any

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import InstanceData
from torch import Tensor, nn

from .cost import Cost, count_cost

if TYPE_CHECKING:
    from mmdet.models import RPNHead
    from mmdet.structures import DetDataSample

_BOX = (0.0, 0.0, 64.0, 64.0)


def input_channels(model: nn.Module) -> int:
    """Return the number of input channels of a model: that of its first convolution."""
    return next(m.in_channels for m in model.modules() if isinstance(m, nn.Conv2d))


def model_cost(config: Config, shape: tuple[int, int], published_convention: bool = False) -> Cost:
    """Count the cost of one image through the model of a config.

    Two-stage detectors get the maximum number of proposals of their RPN, as in published figures;
    an RPN with random weights would return a random number.

    Args:
        config: config of mmdet, mmpretrain or mmseg, with ``model`` and ``default_scope``.
        shape: height and width of the input in pixels.
        published_convention: see :func:`~mmpaca.analysis.count_cost`.
    """
    init_default_scope(config.get('default_scope', 'mmdet'))
    model = MODELS.build(config.model).eval()
    inputs: list[Any] = [torch.rand(1, input_channels(model), *shape)]
    if config.get('default_scope') not in ('mmpretrain', 'mmseg'):
        inputs.append([_data_sample(shape)])
    if getattr(model, 'with_rpn', False):
        _fix_proposals(model.rpn_head, config.model.test_cfg.rpn.max_per_img)
    return count_cost(model, lambda: model(*inputs, mode='tensor'), published_convention)


def _fix_proposals(rpn_head: 'RPNHead', number: int) -> None:
    """Let an RPN run its layers, then return this many boxes."""

    def predict(features: tuple[Tensor, ...], *args: object, **kwargs: object) -> list:
        rpn_head(features)
        return [InstanceData(bboxes=torch.tensor(_BOX).expand(number, 4))]

    rpn_head.predict = predict


def _data_sample(shape: tuple[int, int]) -> 'DetDataSample':
    from mmdet.structures import DetDataSample

    metainfo = dict(img_shape=shape, ori_shape=shape, pad_shape=shape, batch_input_shape=shape)
    return DetDataSample(metainfo=dict(metainfo, scale_factor=(1.0, 1.0)))
