"""Content-aware upsampling, CARAFE (arXiv:1905.02188). Serves mmcv/ops/carafe.py.

Each output pixel is a weighted sum of the k x k patch around its source pixel; the weights are a
map of their own. The tensors whose names begin with r are workspace of mmcv's kernel.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .precision import without_autocast, working_dtype


@without_autocast
def carafe_forward(
    features: Tensor,
    masks: Tensor,
    rfeatures: Tensor,
    routput: Tensor,
    rmasks: Tensor,
    output: Tensor,
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> None:
    """Upsample ``features``; mmcv hands ``rfeatures`` to the backward pass.

    Args:
        features: (N, C, H, W).
        masks: weights, (N, group_size * kernel_size**2, H * scale_factor, W * scale_factor).
        rfeatures: (N, C, H, W), overwritten with the features.
        output: (N, C, H * scale_factor, W * scale_factor), overwritten.
        kernel_size: side k of the patch, odd.
        group_size: groups of channels with weights of their own.
    """
    rfeatures.copy_(features)
    output.copy_(_upsample(features, masks, kernel_size, group_size))


@without_autocast
def carafe_backward(
    grad_output: Tensor,
    rfeatures: Tensor,
    masks: Tensor,
    rgrad_output: Tensor,
    rgrad_input_hs: Tensor,
    rgrad_input: Tensor,
    rgrad_masks: Tensor,
    grad_input: Tensor,
    grad_masks: Tensor,
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> None:
    """Add the gradients to ``grad_input`` (like features) and ``grad_masks`` (like masks)."""
    carafe_naive_backward(
        grad_output, rfeatures, masks, grad_input, grad_masks, kernel_size, group_size, scale_factor
    )


@without_autocast
def carafe_naive_forward(
    features: Tensor,
    masks: Tensor,
    output: Tensor,
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> None:
    """Do the same as `carafe_forward`, without workspace."""
    output.copy_(_upsample(features, masks, kernel_size, group_size))


@without_autocast
def carafe_naive_backward(
    grad_output: Tensor,
    features: Tensor,
    masks: Tensor,
    grad_input: Tensor,
    grad_masks: Tensor,
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> None:
    """Do the same as `carafe_backward`, without workspace."""
    with torch.enable_grad():
        inputs = features.detach().requires_grad_(), masks.detach().requires_grad_()
        upsampled = _upsample(*inputs, kernel_size, group_size)
        grads = torch.autograd.grad(upsampled, inputs, grad_output.to(upsampled))
    grad_input.add_(grads[0])
    grad_masks.add_(grads[1])


def _upsample(features: Tensor, masks: Tensor, kernel_size: int, group_size: int) -> Tensor:
    dtype = working_dtype(features)
    batch, _, height, width = features.shape
    patches = F.unfold(features.to(dtype), kernel_size, padding=kernel_size // 2)
    # (N, C k^2, H W) -> (N, G, C / G, k^2, H, W)
    patches = patches.view(batch, group_size, -1, kernel_size**2, height, width)
    # (N, G k^2, sH, sW) -> (N, G, k^2, H, s, W, s)
    weights = masks.to(dtype).reshape(
        batch, group_size, kernel_size**2, height, -1, width, masks.shape[3] // width
    )
    upsampled = torch.einsum('ngckhw,ngkhawb->ngchawb', patches, weights)
    # (N, G, C / G, H, s, W, s) -> (N, C, sH, sW)
    return upsampled.reshape(batch, -1, *masks.shape[2:])
