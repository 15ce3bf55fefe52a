"""From an image to the network's input, as the data preprocessors of mmdet, mmpretrain and mmseg do it."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Normalise(nn.Module):
    """Normalisation, channel order and padding to a multiple of a number.

    Args:
        preprocessor: data preprocessor of a model of mmdet, mmpretrain or mmseg.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, preprocessor: Any) -> None:
        super().__init__()
        self.rgb = model_reads_rgb(preprocessor)
        self.divisor, self.pad_value = find_padding(preprocessor)
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


def find_padding(preprocessor: Any) -> tuple[int, float]:
    """Return the divisor of the padded sizes, 1 for no padding, and the value of padded pixels."""
    if hasattr(preprocessor, 'pad_size_divisor'):
        return preprocessor.pad_size_divisor, preprocessor.pad_value
    padding = preprocessor.test_cfg or {}  # mmseg's
    return padding.get('size_divisor') or 1, preprocessor.pad_val


def model_reads_rgb(preprocessor: Any) -> bool:
    """Return True if the network's input is RGB; pipelines read BGR."""
    # The same option of mmpretrain, of mmdet and of mmseg.
    names = 'to_rgb', '_channel_conversion', 'channel_conversion'
    return any(getattr(preprocessor, name, False) for name in names)
