"""Segmentors of mmseg: the logits of a decode head in the size of the network's input.

Source: ``mmseg/models/segmentors/encoder_decoder.py``, ``decode_heads/decode_head.py``.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .images import Normalise


class Segmentor(nn.Module):
    """Backbone, neck and decode head, for whole images.

    Args:
        model: EncoderDecoder of mmseg.
    """

    outputs = ('label_map',)

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model: Any = replace_pooling(model)
        self.normalise = Normalise(model.data_preprocessor)

    def forward(self, image: Tensor, scale: Tensor) -> tuple[Tensor, ...]:
        """Compute logits.

        Args:
            image: (B, 3, H, W) RGB, values 0 to 255.
            scale: ignored.

        Returns:
            Logits (B, K, H, W), of which the file makes the label map.
        """
        height, width = image.shape[2:]
        image = self.normalise(image)
        logits = self.model.decode_head(self.model.extract_feat(image))
        logits = F.interpolate(logits, size=image.shape[2:], mode='bilinear')
        return (logits[..., :height, :width],)  # without padding


class AdaptivePool(nn.Module):
    """AdaptiveAvgPool2d for sizes that are not known when the graph is written.

    Args:
        size: height and width of the result.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        """Pool (B, C, H, W) to (B, C, h, w)."""
        rows, columns = (
            mean_weights(cells, length, x)
            for cells, length in zip(self.size, x.shape[2:], strict=True)
        )
        return rows @ x @ columns.transpose(0, 1)


def mean_weights(cells: int, length: int, like: Tensor) -> Tensor:
    """Weights (cells, length) of the pixels in each mean, with the type of a tensor."""
    pixel = torch.arange(length, device=like.device)
    cell = torch.arange(cells, device=like.device)[:, None]
    first, end = cell * length // cells, -((-(cell + 1) * length) // cells)
    inside = ((pixel >= first) & (pixel < end)).to(like)
    return inside / inside.sum(1, keepdim=True)


def replace_pooling(model: nn.Module) -> nn.Module:
    """Replace AdaptiveAvgPool2d in a model, in place."""
    for parent in [*model.modules()]:
        for name, module in parent.named_children():
            if type(module) is nn.AdaptiveAvgPool2d:
                size = module.output_size
                height, width = size if isinstance(size, tuple) else (size, size)
                if height and width:  # None keeps the size
                    setattr(parent, name, AdaptivePool((height, width)))
    return model
