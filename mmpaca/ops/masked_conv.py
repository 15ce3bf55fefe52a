"""Convolution at the pixels of a mask, as Guided Anchoring predicts (arXiv:1901.03278).

Serves mmcv/ops/masked_conv.py, which gathers patches, multiplies, and scatters the results. There
is no backward pass in mmcv either.
"""

import torch.nn.functional as F
from torch import Tensor


def masked_im2col_forward(
    im: Tensor,
    mask_h_idx: Tensor,
    mask_w_idx: Tensor,
    col: Tensor,
    kernel_h: int,
    kernel_w: int,
    pad_h: int,
    pad_w: int,
) -> None:
    """Gather the patches around the pixels of the mask.

    Args:
        im: (1, C, H, W).
        mask_h_idx, mask_w_idx: row and column of K pixels, (K,).
        col: (C * kernel_h * kernel_w, K), overwritten.
        pad_h, pad_w: zero padding; the patch begins that much above and left of its pixel.
    """
    # Every pixel of the mask has a patch, whatever kernel and padding are.
    padded = F.pad(im[0], (pad_w, kernel_w, pad_h, kernel_h))
    for row in range(kernel_h):
        for column in range(kernel_w):
            patch = padded[:, mask_h_idx + row, mask_w_idx + column]  # (C, K)
            col.view(im.shape[1], kernel_h, kernel_w, -1)[:, row, column] = patch


def masked_col2im_forward(
    col: Tensor,
    mask_h_idx: Tensor,
    mask_w_idx: Tensor,
    im: Tensor,
    height: int,
    width: int,
    channels: int,
) -> None:
    """Scatter ``col`` (channels, K) to the pixels of the mask in ``im`` (1, channels, H, W)."""
    im[0, :, mask_h_idx, mask_w_idx] = col
