"""Masks of the detected classes alone."""

from typing import Any

import torch
from torch import Tensor, nn


class OwnClassMask(nn.Module):
    """FCNMaskHead for the class of each detection.

    A transposed convolution whose kernel is as large as its stride is a 1x1 convolution with the
    pixels of each cell as channels, and of the last layer only the weights of one class are needed:
    ONNX runtimes are slow in the former, and the latter has 80 classes on COCO.

    Args:
        head: FCNMaskHead of mmdet.

    Source: ``mmdet/models/roi_heads/mask_heads/fcn_mask_head.py``.
    """

    def __init__(self, head: Any) -> None:
        super().__init__()
        self.head: Any = head
        self.upsample: nn.Conv2d | None = None
        last = head.conv_logits
        plain = type(last) is nn.Conv2d and last.bias is not None
        if plain and head.upsample_method == 'deconv':
            self.upsample = pixels_as_channels(head.upsample)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """Predict.

        Args:
            x: features of RoIs, (R, C, h, w).
            labels: (R,).

        Returns:
            Logits, (R, H, W).
        """
        if self.head.class_agnostic:
            labels = torch.zeros_like(labels)
        if self.upsample is None:
            logits = self.head(x)  # (R, K, H, W)
            own = labels[:, None, None, None].expand(-1, 1, *logits.shape[2:])
            return logits.gather(1, own)[:, 0]
        for conv in self.head.convs:
            x = conv(x)
        height, width = x.shape[2:]
        rows, columns = self.head.upsample.stride
        x = (
            self.upsample(x).relu().flatten(2).unflatten(1, (rows * columns, -1))
        )  # (R, p, C, h * w)
        weight = self.head.conv_logits.weight.flatten(1)[labels]  # (R, C)
        bias = self.head.conv_logits.bias[labels]
        logits = weight[:, None, None] @ x + bias[:, None, None, None]  # (R, p, 1, h * w)
        logits = logits.reshape(-1, rows, columns, height, width).permute(0, 3, 1, 4, 2)
        return logits.reshape(-1, height * rows, width * columns)


def pixels_as_channels(layer: nn.ConvTranspose2d) -> nn.Conv2d:
    """Return the 1x1 convolution to (rows * columns * C') channels of a transposed convolution."""
    pixels = layer.stride[0] * layer.stride[1]
    biased = layer.bias is not None
    conv = nn.Conv2d(layer.in_channels, pixels * layer.out_channels, 1, bias=biased)
    # (C, C', rows, columns) -> (rows * columns * C', C, 1, 1)
    state = dict(weight=layer.weight.permute(2, 3, 1, 0).reshape(conv.weight.shape))
    if layer.bias is not None:
        state['bias'] = layer.bias.repeat(pixels)
    conv.load_state_dict(state)
    return conv
