"""RoIAlign. Serves the calls of mmcv/ops/roi_align.py.

torchvision's kernels equal those of compiled mmcv to the last bit, forward and backward (CPU). On
CUDA the backward pass uses atomic additions and is not deterministic, as in mmcv; with
``torch.use_deterministic_algorithms(True)`` torchvision's deterministic implementation is used.
"""

import torch
import torchvision  # registers torch.ops.torchvision
from torch import Tensor

from .precision import without_autocast, working_dtype

AVERAGE = 1  # mmcv's pool_mode; 0 is max


@without_autocast
def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Average the bilinear samples in each bin of each RoI.

    Args:
        input: (N, C, H, W).
        rois: (K, 5), image index in 0 .. N-1, then x1, y1, x2, y2 in image pixels.
        output: (K, C, aligned_height, aligned_width), overwritten.
        argmax_y, argmax_x: for the pooling mode max; ignored.
        spatial_scale: feature pixels per image pixel.
        sampling_ratio: samples per bin and axis; 0 means one per pixel of the bin.
        pool_mode: 1 (average).
        aligned: shift by half a pixel, so that pixel centres are at .5.

    Raises:
        NotImplementedError: ``pool_mode`` is 0 (max), which torchvision does not have.
    """
    _require_average(pool_mode)
    dtype = working_dtype(input)
    pooled = torch.ops.torchvision.roi_align(
        input.to(dtype),
        rois.to(dtype),
        spatial_scale,
        aligned_height,
        aligned_width,
        sampling_ratio,
        aligned,
    )
    output.copy_(pooled)


@without_autocast
def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Add the gradient of `roi_align_forward` to ``grad_input`` (N, C, H, W).

    ``grad_output`` is (K, C, aligned_height, aligned_width); RoIs get no gradient.

    Raises:
        NotImplementedError: ``pool_mode`` is 0 (max).
    """
    _require_average(pool_mode)
    dtype = working_dtype(grad_output)
    if torch.are_deterministic_algorithms_enabled() and grad_output.is_cuda:
        grad = deterministic_gradient(
            grad_output.to(dtype),
            rois.to(dtype),
            grad_input.shape,
            spatial_scale,
            sampling_ratio,
            aligned,
        )
        grad_input.add_(grad)
        return
    grad = torch.ops.torchvision._roi_align_backward(
        grad_output.to(dtype),
        rois.to(dtype),
        spatial_scale,
        aligned_height,
        aligned_width,
        *grad_input.shape,
        sampling_ratio,
        aligned,
    )
    grad_input.add_(grad)


def deterministic_gradient(
    grad_output: Tensor,
    rois: Tensor,
    shape: torch.Size,
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    """Compute the gradient by ``torchvision.ops.roi_align``, which has a deterministic mode on CUDA.

    Its Python implementation takes much memory. The kernel that :func:`roi_align_backward` calls
    otherwise may not even warn that it is not deterministic.

    Args:
        grad_output: (K, C, height, width) of the bins.
        rois: (K, 5).
        shape: (N, C, H, W) of the gradient.
        spatial_scale, sampling_ratio, aligned: as in :func:`roi_align_forward`.
    """
    # RoIAlign is linear: its gradient does not depend on the input.
    maps = grad_output.new_zeros(shape).requires_grad_()
    size = (grad_output.size(2), grad_output.size(3))
    with torch.enable_grad():
        pooled = torchvision.ops.roi_align(maps, rois, size, spatial_scale, sampling_ratio, aligned)
    return torch.autograd.grad(pooled, maps, grad_output)[0]


def _require_average(pool_mode: int) -> None:
    if pool_mode != AVERAGE:
        raise NotImplementedError(
            f"RoIAlign with pool_mode {pool_mode} ('max') has no torchvision equivalent; use "
            "pool_mode='avg' or install compiled mmcv"
        )
