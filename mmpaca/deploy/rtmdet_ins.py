"""RTMDet-Ins: a dense head whose detections carry the kernels of small networks for their masks.

Source: ``mmdet/models/dense_heads/rtmdet_ins_head.py``.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .boxes import image_limit, padded, select, take
from .dense import candidates, drop_small
from .images import Normalise


class RTMDetIns(nn.Module):
    """Backbone, neck and RTMDetInsHead.

    Args:
        model: RTMDet of mmdet with such a head.
    """

    outputs = ('boxes', 'scores', 'labels', 'masks')

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.normalise = Normalise(model.data_preprocessor)

    def forward(self, image: Tensor, scale: Tensor) -> tuple[Tensor, ...]:
        """Detect; see :meth:`mmpaca.deploy.dense.DenseDetector.forward`.

        Returns:
            Boxes, scores, labels, and logits of masks (B, K, H, W) in the network's input.
        """
        head, cfg = self.model.bbox_head, self.model.test_cfg
        *outputs, features = head(self.model.extract_feat(self.normalise(image)))
        found = candidates(head, cfg, outputs, image_limit(image), extra=True)
        found = drop_small(found._replace(boxes=found.boxes * scale), cfg)
        index = select(found.boxes, found.scores, found.labels, cfg)
        boxes, scores, labels = padded(index, found.boxes, found.scores, found.labels)
        levels = found.levels.gather(1, index.clamp(min=0))
        logits = self.masks(features, take(found.priors, index), levels, take(found.extra, index))
        logits = torch.where((index >= 0)[..., None, None], logits, -1.0)
        stride = head.prior_generator.strides[0][0]
        size = [side * stride for side in logits.shape[2:]]
        return boxes, scores, labels, F.interpolate(logits, size=size, mode='bilinear')

    def masks(self, features: Tensor, points: Tensor, levels: Tensor, kernels: Tensor) -> Tensor:
        """Run the network of each detection.

        Args:
            features: (B, P, h, w), shared by all detections.
            points: (B, K, 2), priors of the detections.
            levels: (B, K), their levels.
            kernels: (B, K, D), weights and biases of all layers.

        Returns:
            Logits, (B, K, h, w).
        """
        head = self.model.bbox_head
        generator = head.prior_generator
        height, width = features.shape[2:]
        stride = generator.strides[0]
        x = (torch.arange(width, device=points.device) + generator.offset) * stride[0]
        y = (torch.arange(height, device=points.device) + generator.offset) * stride[1]
        reach = points.new_tensor([s[0] for s in generator.strides])[levels][..., None] * 8
        # Position in relation to the detection, (B, K, 2, h * w)
        x = ((points[..., :1] - x) / reach)[..., None, :].expand(-1, -1, height, -1)
        y = ((points[..., 1:] - y) / reach)[..., None].expand(-1, -1, -1, width)
        position = torch.stack((x.flatten(2), y.flatten(2)), 2)
        layers = len(head.weight_nums)
        parts = kernels.split(head.weight_nums + head.bias_nums, -1)
        hidden = features  # replaced by the first layer
        for i, (weight, bias) in enumerate(zip(parts[:layers], parts[layers:], strict=True)):
            weight = weight.unflatten(2, (bias.shape[2], -1))  # (B, K, out, in)
            if i == 0:
                # Two products in place of a copy of the features for each detection.
                shared = weight[..., 2:].flatten(1, 2) @ features.flatten(2)  # (B, K * out, h * w)
                shared = shared.unflatten(1, (weight.shape[1], -1))
                hidden = shared + weight[..., :2] @ position
            else:
                hidden = weight @ hidden
            hidden = hidden + bias[..., None]
            if i < layers - 1:
                hidden = hidden.relu()
        return hidden.unflatten(3, (height, width))[:, :, 0]
