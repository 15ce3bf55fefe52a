"""Multi-scale deformable attention (arXiv:2010.04159). Serves mmcv/ops/multi_scale_deform_attn.py.

mmcv has a PyTorch implementation, which it uses on the CPU; on CUDA it calls ``_ext``, which here is
served by the same function. ``value_level_start_index`` (it follows from the shapes) and
``im2col_step`` (a tuning parameter of mmcv's kernel) are ignored.
"""

import torch
from torch import Tensor

from .precision import without_autocast, working_dtype


@without_autocast
def ms_deform_attn_forward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    im2col_step: int,
) -> Tensor:
    """Compute the weighted sum of bilinear samples.

    Args:
        value: (N, keys, heads, channels), the levels one after the other.
        value_spatial_shapes: (levels, 2), (height, width) of each level.
        sampling_locations: (N, queries, heads, levels, points, 2), (x, y) in 0 .. 1 of the level;
            0 outside.
        attention_weights: (N, queries, heads, levels, points).

    Returns:
        (N, queries, heads * channels), in the dtype of ``value``.
    """
    dtype = working_dtype(value)
    operands = (t.to(dtype) for t in (value, sampling_locations, attention_weights))
    return _attend(value_spatial_shapes, *operands).to(value.dtype)


@without_autocast
def ms_deform_attn_backward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    grad_output: Tensor,
    grad_value: Tensor,
    grad_sampling_loc: Tensor,
    grad_attn_weight: Tensor,
    im2col_step: int,
) -> None:
    """Add the gradients to ``grad_*``, each shaped like its tensor. Runs the forward pass again."""
    dtype = working_dtype(value)
    operands = [
        t.detach().to(dtype).requires_grad_()
        for t in (value, sampling_locations, attention_weights)
    ]
    with torch.enable_grad():
        output = _attend(value_spatial_shapes, *operands)
    grads = torch.autograd.grad(output, operands, grad_output.to(dtype))
    for total, grad in zip((grad_value, grad_sampling_loc, grad_attn_weight), grads, strict=True):
        total.add_(grad)


def _attend(
    shapes: Tensor, value: Tensor, sampling_locations: Tensor, attention_weights: Tensor
) -> Tensor:
    # Imported late: mmcv.ops imports the module that this package replaces.
    from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch

    # Python integers: every use of a tensor as a shape would synchronise with the GPU.
    return multi_scale_deformable_attn_pytorch(
        value, shapes.tolist(), sampling_locations, attention_weights
    )
