"""Multi-scale deformable attention (arXiv:2010.04159). Serves mmcv/ops/multi_scale_deform_attn.py.

mmcv has a PyTorch implementation, which it uses on the CPU; on CUDA it calls ``_ext``, which here is
served by PyTorch's ``grid_sample``, a level at a time. Compiled mmcv has one kernel for all of it and
is the better choice for long trainings of DINO or Mask2Former. ``value_level_start_index`` (it follows from the shapes) and
``im2col_step`` (a tuning parameter of mmcv's kernel) are ignored.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
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
    levels = _levels(value.to(dtype), value_spatial_shapes, sampling_locations, attention_weights)
    parts = (_attend_level(*level) for level in levels)
    output = next(parts)
    for part in parts:
        output += part
    return _merge_heads(output, value).to(value.dtype)


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
    """Add the gradients to ``grad_*``, each shaped like its tensor.

    Runs the forward pass again, one level at a time, so that the samples of one level exist at once.
    """
    dtype = working_dtype(value)
    heads = value.size(2)
    # (N, queries, heads * channels) -> (N * heads, channels, queries)
    grad = grad_output.to(dtype).unflatten(2, (heads, -1)).permute(0, 2, 3, 1).flatten(0, 1)
    start = 0
    levels = _levels(value.to(dtype), value_spatial_shapes, sampling_locations, attention_weights)
    for i, level in enumerate(levels):
        operands = [operand.detach().requires_grad_() for operand in level]
        with torch.enable_grad():
            output = _attend_level(*operands)
        maps, grids, weights = torch.autograd.grad(output, operands, grad)
        keys = maps.shape[-2] * maps.shape[-1]
        # (N * heads, channels, H, W) -> (N, keys, heads, channels)
        maps = maps.flatten(2).unflatten(0, (-1, heads)).permute(0, 3, 1, 2)
        grad_value[:, start : start + keys] += maps
        start += keys
        # (N * heads, queries, points, 2) -> (N, queries, heads, points, 2); a grid is 2 x - 1
        grad_sampling_loc[:, :, :, i] += grids.unflatten(0, (-1, heads)).transpose(1, 2) * 2
        grad_attn_weight[:, :, :, i] += weights.unflatten(0, (-1, heads)).transpose(1, 2)


def _levels(
    value: Tensor, shapes: Tensor, locations: Tensor, weights: Tensor
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield the operands of :func:`_attend_level` for each level, in the precision of ``value``."""
    start = 0
    # Python integers: every use of a tensor as a shape would synchronise with the GPU.
    for i, (height, width) in enumerate(shapes.tolist()):
        # (N, H * W, heads, channels) -> (N * heads, channels, H, W)
        maps = value[:, start : start + height * width].permute(0, 2, 3, 1).flatten(0, 1)
        start += height * width
        # (N, queries, heads, points, 2) -> (N * heads, queries, points, 2)
        grids = locations[:, :, :, i].to(value.dtype).transpose(1, 2).flatten(0, 1) * 2 - 1
        shares = weights[:, :, :, i].to(value.dtype).transpose(1, 2).flatten(0, 1)
        yield maps.unflatten(2, (height, width)), grids, shares


def _attend_level(maps: Tensor, grids: Tensor, weights: Tensor) -> Tensor:
    """Sum weighted bilinear samples of one level.

    Args:
        maps: (N * heads, channels, H, W).
        grids: (N * heads, queries, points, 2), (x, y) in -1 .. 1.
        weights: (N * heads, queries, points).

    Returns:
        (N * heads, channels, queries).
    """
    samples = F.grid_sample(maps, grids, padding_mode='zeros', align_corners=False)
    # (N * heads, channels, queries, points) -> (N * heads, channels, queries)
    return (samples * weights[:, None]).sum(-1)


def _merge_heads(output: Tensor, value: Tensor) -> Tensor:
    """Turn (N * heads, channels, queries) into (N, queries, heads * channels)."""
    return output.unflatten(0, (value.size(0), value.size(2))).permute(0, 3, 1, 2).flatten(2)
