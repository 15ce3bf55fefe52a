"""Modulated deformable convolution (DCNv2, arXiv:1811.11168).

Serves mmcv/ops/modulated_deform_conv.py. The layout is that of `mmpaca.ops.deform_conv`;
``ones`` and ``columns`` are workspace of mmcv's kernel and ignored.

Offset and mask may be larger than the output, as in DyHead (arXiv:2106.08322), which takes those of a
finer level. mmcv's kernel reads the beginning of their memory as a map of the output's size, and
released weights were trained with that; so does this one.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .deform_conv import convolve, gradients
from .precision import without_autocast


@without_autocast
def modulated_deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    output: Tensor,
    columns: Tensor,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    group: int,
    deformable_group: int,
    with_bias: bool,
) -> None:
    """Convolve ``input`` at shifted sampling points, each weighted by the mask.

    Args:
        input: (N, Cin, H, W).
        weight: (Cout, Cin / group, kernel_h, kernel_w).
        bias: (Cout,), read if ``with_bias``.
        offset: (N, deformable_group * kernel_h * kernel_w * 2, Hout, Wout), in input pixels, or
            larger maps.
        mask: (N, deformable_group * kernel_h * kernel_w, Hout, Wout), or larger maps.
        output: (N, Cout, Hout, Wout), overwritten.
    """
    geometry = (stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, group, deformable_group)
    size = output.shape[2:]
    offset, mask = _beginning(offset, size), _beginning(mask, size)
    output.copy_(convolve(input, weight, offset, mask, bias if with_bias else None, geometry))


@without_autocast
def modulated_deform_conv_backward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    columns: Tensor,
    grad_input: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    grad_offset: Tensor,
    grad_mask: Tensor,
    grad_output: Tensor,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    group: int,
    deformable_group: int,
    with_bias: bool,
) -> None:
    """Add the gradients to ``grad_*``, each shaped like its tensor; bias only if ``with_bias``."""
    geometry = (stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, group, deformable_group)
    size = grad_output.shape[2:]
    grads = gradients(
        grad_output,
        input,
        weight,
        _beginning(offset, size),
        _beginning(mask, size),
        bias if with_bias else None,
        geometry,
    )
    grad_input.add_(grads[0])
    grad_weight.add_(grads[1])
    grad_offset.add_(_filled(grads[2], grad_offset.shape))
    grad_mask.add_(_filled(grads[3], grad_mask.shape))
    if with_bias:
        grad_bias.add_(grads[4])


def _beginning(maps: Tensor, size: torch.Size) -> Tensor:
    """Read the beginning of each image's (C, H, W) as (C, *size), unless H and W are smaller."""
    if maps.shape[2:] == size or maps[0, 0].numel() < math.prod(size):
        return maps  # torchvision's kernel refuses smaller ones
    channels = maps.shape[1]
    return maps.flatten(1)[:, : channels * math.prod(size)].unflatten(1, (channels, *size))


def _filled(maps: Tensor, shape: torch.Size) -> Tensor:
    """Write maps (N, C, h, w) at the beginning of each image's (C, H, W), zeros behind them."""
    flat = maps.flatten(1)
    return F.pad(flat, (0, math.prod(shape[1:]) - flat.shape[1])).view(shape)
