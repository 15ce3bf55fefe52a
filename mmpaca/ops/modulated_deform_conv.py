"""Modulated deformable convolution (DCNv2, arXiv:1811.11168).

Serves mmcv/ops/modulated_deform_conv.py. The layout is that of `mmpaca.ops.deform_conv`;
``ones`` and ``columns`` are workspace of mmcv's kernel and ignored.
"""

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
        offset: (N, deformable_group * kernel_h * kernel_w * 2, Hout, Wout), in input pixels.
        mask: (N, deformable_group * kernel_h * kernel_w, Hout, Wout).
        output: (N, Cout, Hout, Wout), overwritten.
    """
    geometry = (stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, group, deformable_group)
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
    grads = gradients(
        grad_output, input, weight, offset, mask, bias if with_bias else None, geometry
    )
    grad_input.add_(grads[0])
    grad_weight.add_(grads[1])
    grad_offset.add_(grads[2])
    grad_mask.add_(grads[3])
    if with_bias:
        grad_bias.add_(grads[4])
