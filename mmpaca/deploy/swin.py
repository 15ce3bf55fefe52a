"""Swin Transformers of mmdet and mmseg, in a form that torch.export traces for any size.

Their windows take the batch size from ``int()`` of a quotient, and the mask of shifted windows is written
slice by slice: both hold for the traced size only. Here the same values are functions of shapes.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_MODULES = tuple(
    f'{codebase}.models.{part}'
    for codebase in ('mmdet', 'mmseg')
    for part in ('backbones.swin', 'layers.transformer.utils', 'utils.embed')
)
_FAR = -100.0  # added to the logits of patches that only the shift brings together


class Windows(nn.Module):
    """Attention in windows, shifted or not, for inference.

    Args:
        attention: trained ShiftWindowMSA.
    """

    bias: Tensor

    def __init__(self, attention: Any) -> None:
        super().__init__()
        msa = attention.w_msa
        self.size, self.shift = attention.window_size, attention.shift_size
        self.heads, self.scale = msa.num_heads, msa.scale
        self.qkv, self.proj = msa.qkv, msa.proj
        table, index = msa.relative_position_bias_table, msa.relative_position_index
        bias = table.detach()[index.flatten()].view(*index.shape, -1).permute(2, 0, 1)
        self.register_buffer('bias', bias.contiguous())

    def forward(self, x: Tensor, hw_shape: tuple[int, int]) -> Tensor:
        """Map (B, H * W, C) to (B, H * W, C)."""
        (height, width), size = hw_shape, self.size
        batch, _, channels = x.shape
        rows, columns = _pieces(height, size), _pieces(width, size)
        x = _pad_to(x.view(batch, height, width, channels), rows * size, columns * size)
        x = _roll(x, self.shift)
        x = x.view(batch, rows, size, columns, size, channels).transpose(2, 3)
        x = self._attend(x.reshape(batch, rows * columns, size**2, channels), rows, columns)
        x = x.view(batch, rows, columns, size, size, channels).transpose(2, 3)
        x = x.reshape(batch, rows * size, columns * size, channels)
        x = _roll(x, -self.shift)[:, :height, :width]
        return x.reshape(batch, height * width, channels)

    def _attend(self, x: Tensor, rows: int, columns: int) -> Tensor:
        batch, windows, patches, channels = x.shape
        qkv = self.qkv(x).view(batch, windows, patches, 3, self.heads, channels // self.heads)
        q, k, v = qkv.permute(3, 0, 1, 4, 2, 5).unbind(0)
        logits = (q * self.scale) @ k.transpose(-2, -1) + self.bias
        if self.shift:
            logits = logits + self._mask(rows, columns, x.device)[:, None]
        x = (logits.softmax(-1) @ v).transpose(2, 3)
        return self.proj(x.reshape(batch, windows, patches, channels))

    def _mask(self, rows: int, columns: int, device: torch.device) -> Tensor:
        """Return what is added to the logits: (windows, patches, patches)."""
        size = self.size

        def part(number: int) -> Tensor:
            """Return which of three parts, which the shift brings together, each row or column is of."""
            place = torch.arange(number * size, device=device)
            return (place >= (number - 1) * size).long() + (place >= number * size - self.shift)

        parts = 3 * part(rows)[:, None] + part(columns)
        parts = parts.view(rows, size, columns, size).transpose(1, 2).reshape(-1, size**2)
        return torch.where(parts[:, :, None] == parts[:, None], 0.0, _FAR)


class Merging(nn.Module):
    """Merge patches of neighbouring places, for inference.

    Args:
        merging: trained PatchMerging whose kernel is its stride.
    """

    def __init__(self, merging: Any) -> None:
        super().__init__()
        self.stride = merging.sampler.stride
        self.norm, self.reduction = merging.norm or nn.Identity(), merging.reduction

    def forward(self, x: Tensor, input_size: tuple[int, int]) -> tuple[Tensor, tuple[int, int]]:
        """Map (B, H * W, C) to (B, H' * W', C') and (H', W')."""
        (height, width), (down, right) = input_size, self.stride
        batch, _, channels = x.shape
        rows, columns = _pieces(height, down), _pieces(width, right)
        x = _pad_to(x.view(batch, height, width, channels), rows * down, columns * right)
        x = x.view(batch, rows, down, columns, right, channels).permute(0, 1, 3, 5, 2, 4)
        x = x.reshape(batch, rows * columns, channels * down * right)
        return self.reduction(self.norm(x)), (rows, columns)


class Padding(nn.Module):
    """Pad (B, C, H, W) at the right and at the bottom to multiples of a stride.

    Args:
        padding: AdaptivePadding whose kernel is its stride.
    """

    def __init__(self, padding: Any) -> None:
        super().__init__()
        self.stride = padding.stride

    def forward(self, x: Tensor) -> Tensor:
        """Pad."""
        (height, width), (down, right) = x.shape[2:], self.stride
        below = _pieces(height, down) * down - height
        return F.pad(x, (0, _pieces(width, right) * right - width, 0, below))


def _pieces(length: int, size: int) -> int:
    """Return the number of pieces of ``size`` that cover ``length``."""
    return (length + size - 1) // size


def _pad_to(x: Tensor, height: int, width: int) -> Tensor:
    """Pad (B, H, W, C) with zeros at the bottom and at the right."""
    return F.pad(x, (0, 0, 0, width - x.shape[2], 0, height - x.shape[1]))


def _roll(x: Tensor, shift: int) -> Tensor:
    """Roll rows and columns of (B, H, W, C) up and to the left; down and to the right if negative."""
    if not shift:
        return x
    x = torch.cat((x[:, shift:], x[:, :shift]), 1)
    return torch.cat((x[:, :, shift:], x[:, :, :shift]), 2)


def make_traceable(model: nn.Module) -> nn.Module:
    """Replace the modules above in a model, in place."""
    module: Any
    for parent in [*model.modules()]:
        for name, module in parent.named_children():
            kind = type(module)
            if kind.__module__ not in _MODULES:
                continue
            if kind.__name__ == 'ShiftWindowMSA':
                setattr(parent, name, Windows(module))
            elif kind.__name__ == 'PatchMerging' and _covers(module.sampler, module.adap_padding):
                setattr(parent, name, Merging(module))
            elif kind.__name__ == 'AdaptivePadding' and _covers(module, module):
                setattr(parent, name, Padding(module))
    return model


def _covers(steps: Any, padding: Any) -> bool:
    """Tell whether kernels lie side by side and what exceeds the map is padded at its end."""
    return (
        steps.kernel_size == steps.stride
        and {*steps.dilation} == {1}
        and getattr(padding, 'padding', None) == 'corner'
    )
