"""From an image to the network's input, as mmdet's and mmpretrain's data preprocessors do it."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Normalise(nn.Module):
    """Normalisation, channel order and padding to a multiple of ``pad_size_divisor``.

    Args:
        preprocessor: data preprocessor of a model of mmdet or mmpretrain.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, preprocessor: Any) -> None:
        super().__init__()
        self.rgb = model_reads_rgb(preprocessor)
        self.divisor, self.pad_value = preprocessor.pad_size_divisor, preprocessor.pad_value
        normalised = preprocessor._enable_normalize
        mean = preprocessor.mean if normalised else torch.zeros(3, 1, 1)
        std = preprocessor.std if normalised else torch.ones(3, 1, 1)
        self.register_buffer('mean', mean.detach().clone())
        self.register_buffer('std', std.detach().clone())

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) RGB, values 0 to 255, to (B, 3, H', W')."""
        if not self.rgb:
            image = image.flip(1)
        height, width = image.shape[2:]
        image = (image - self.mean) / self.std
        if self.divisor == 1:
            return image
        margins = (0, -width % self.divisor, 0, -height % self.divisor)
        return F.pad(image, margins, value=self.pad_value)


def model_reads_rgb(preprocessor: Any) -> bool:
    """Return True if the network's input is RGB; pipelines read BGR."""
    # The same option of mmpretrain and of mmdet.
    return bool(
        getattr(preprocessor, 'to_rgb', getattr(preprocessor, '_channel_conversion', False))
    )
