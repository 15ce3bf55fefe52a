"""Deformable convolution (arXiv:1703.06211). Serves mmcv/ops/deform_conv.py.

mmcv and torchvision agree on the layout of offsets: channel 2 * (g * kH * kW + k) is the shift in
y of kernel point k in deformable group g, the next one the shift in x, in pixels of the input.
``columns``, ``ones`` and ``im2col_step`` are workspace of mmcv's kernel and ignored. mmcv passes
the arguments as keywords, hence their names.
"""

import torch
import torchvision  # noqa: F401  registers torch.ops.torchvision
from torch import Tensor

from .precision import without_autocast, working_dtype


@without_autocast
def deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    output: Tensor,
    columns: Tensor,
    ones: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    im2col_step: int,
) -> None:
    """Convolve ``input`` at shifted sampling points.

    Args:
        input: (N, Cin, H, W).
        weight: (Cout, Cin / group, kH, kW).
        offset: (N, deformable_group * kH * kW * 2, Hout, Wout).
        output: (N, Cout, Hout, Wout), overwritten.
        kW, kH, dW, dH, padW, padH, dilationW, dilationH: kernel size, stride, zero padding and
            dilation.
    """
    geometry = (dH, dW, padH, padW, dilationH, dilationW, group, deformable_group)
    output.copy_(convolve(input, weight, offset, None, None, geometry))


@without_autocast
def deform_conv_backward_input(
    input: Tensor,
    offset: Tensor,
    gradOutput: Tensor,
    gradInput: Tensor,
    gradOffset: Tensor,
    weight: Tensor,
    columns: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    im2col_step: int,
) -> None:
    """Add the gradients to ``gradInput`` (like input) and ``gradOffset`` (like offset)."""
    geometry = (dH, dW, padH, padW, dilationH, dilationW, group, deformable_group)
    grads = gradients(gradOutput, input, weight, offset, None, None, geometry)
    gradInput.add_(grads[0])
    gradOffset.add_(grads[2])


@without_autocast
def deform_conv_backward_parameters(
    input: Tensor,
    offset: Tensor,
    gradOutput: Tensor,
    gradWeight: Tensor,
    columns: Tensor,
    ones: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    scale: float,
    im2col_step: int,
) -> None:
    """Add ``scale`` times the gradient to ``gradWeight`` (like weight)."""
    geometry = (dH, dW, padH, padW, dilationH, dilationW, group, deformable_group)
    # torchvision computes all gradients in one kernel; this one is independent of the weight.
    grads = gradients(gradOutput, input, gradWeight, offset, None, None, geometry)
    gradWeight.add_(grads[1], alpha=scale)


def convolve(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    bias: Tensor | None,
    geometry: tuple[int, ...],
) -> Tensor:
    """Run torchvision's kernel in the working precision.

    ``geometry`` is (stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, groups,
    deformable groups). ``mask`` (N, deformable groups * kH * kW, Hout, Wout) modulates.
    """
    tensors = _operands(input, weight, offset, mask, bias)
    return torch.ops.torchvision.deform_conv2d(*tensors, *geometry, mask is not None)


def gradients(
    grad_output: Tensor,
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    bias: Tensor | None,
    geometry: tuple[int, ...],
) -> tuple[Tensor, ...]:
    """Gradients of `convolve` with respect to input, weight, offset, mask and bias."""
    tensors = _operands(input, weight, offset, mask, bias)
    grad_output = grad_output.to(tensors[0])
    return torch.ops.torchvision._deform_conv2d_backward(
        grad_output, *tensors, *geometry, mask is not None
    )


def _operands(
    input: Tensor, weight: Tensor, offset: Tensor, mask: Tensor | None, bias: Tensor | None
) -> tuple[Tensor, ...]:
    """Operands of the kernels: one dtype, an empty tensor for no mask, zeros for no bias."""
    dtype = working_dtype(input)
    if mask is None:
        mask = input.new_empty((input.size(0), 0, 0, 0))
    if bias is None:
        bias = input.new_zeros(weight.size(0))
    return tuple(tensor.to(dtype) for tensor in (input, weight, offset, mask, bias))
