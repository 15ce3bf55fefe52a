"""RoIPool. Serves the calls of mmcv/ops/roi_pool.py.

Written in PyTorch because torchvision defines RoIPool differently: it rounds the corners of a RoI
to feature pixels and then adds 1, while mmcv scales (x2 + 1, y2 + 1) and rounds bins outwards.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from .precision import working_dtype

# Maximum number of gathered elements: 64 MB in float32.
GATHER_LIMIT = 2**24


def roi_pool_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Take the maximum over each bin of each RoI.

    Bins outside of the map and RoIs without a positive width and height give 0 and no gradient.
    (mmcv sends the gradient of such RoIs to pixel 0.)

    Args:
        input: (N, C, H, W).
        rois: (K, 5), image index in 0 .. N-1, then x1, y1, x2, y2 in image pixels, inclusive.
        output: (K, C, pooled_height, pooled_width), overwritten.
        argmax: the same shape, int32, overwritten: y * W + x of the maximum (the first one in
            row-major order), -1 if there is none.
        spatial_scale: feature pixels per image pixel.

    Raises:
        IndexError: on the CPU, an image index is not in the batch.
    """
    channels, height, width = input.shape[1:]
    image = rois[:, 0].long()
    rois = rois.to(working_dtype(input))
    top, bottom = _bin_edges(rois[:, 2], rois[:, 4], spatial_scale, pooled_height, height)
    left, right = _bin_edges(rois[:, 1], rois[:, 3], spatial_scale, pooled_width, width)
    # (N, C, H, W) -> (N * H * W, C): one row per pixel
    pixels = input.permute(0, 2, 3, 1).reshape(-1, channels)

    sizes = torch.stack(((bottom - top).amax(1), (right - left).amax(1)), dim=1).clamp_(min=1)
    for chunk in _chunks(sizes.tolist(), channels * pooled_height * pooled_width):
        tall, wide = sizes[chunk].amax(0).tolist()
        y = top[chunk, :, None] + torch.arange(tall, device=rois.device)  # (k, PH, tall)
        x = left[chunk, :, None] + torch.arange(wide, device=rois.device)  # (k, PW, wide)
        inside_y, inside_x = y < bottom[chunk, :, None], x < right[chunk, :, None]
        y, x = y.clamp_(max=height - 1), x.clamp_(max=width - 1)
        # (k, PH, 1, tall, 1) with (k, 1, PW, 1, wide) -> (k, PH, PW, tall * wide)
        position = (y[:, :, None, :, None] * width + x[:, None, :, None, :]).flatten(3)
        inside = (inside_y[:, :, None, :, None] & inside_x[:, None, :, None, :]).flatten(3)
        row = position + (image[chunk] * (height * width)).view(-1, 1, 1, 1)
        values = pixels.index_select(0, row.flatten()).view(*position.shape, channels)
        values.masked_fill_(~inside[..., None], float('-inf'))
        peak, which = values.max(dim=3)  # (k, PH, PW, C)
        where = position.gather(3, which)
        empty = ~inside.any(dim=3)[..., None]
        # (k, PH, PW, C) -> (k, C, PH, PW)
        output[chunk] = peak.masked_fill_(empty, 0).permute(0, 3, 1, 2).to(output)
        argmax[chunk] = where.masked_fill_(empty, -1).permute(0, 3, 1, 2).to(argmax)


def roi_pool_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax: Tensor,
    grad_input: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Add each gradient of `roi_pool_forward` to its pixel of ``grad_input`` (N, C, H, W).

    ``grad_output`` and ``argmax`` are (K, C, pooled_height, pooled_width).
    """
    channels, pixels = grad_input.size(1), grad_input[0, 0].numel()
    plane = rois[:, :1].long() * channels + torch.arange(channels, device=rois.device)  # (K, C)
    target = plane[:, :, None, None] * pixels + argmax.clamp(min=0)
    # Overlapping RoIs add to the same pixels: sum in the working precision.
    dtype = working_dtype(grad_output)
    grad = grad_output.to(dtype).masked_fill(argmax < 0, 0)
    total = torch.zeros(grad_input.numel(), dtype=dtype, device=grad_input.device)
    total.index_add_(0, target.flatten(), grad.flatten())
    grad_input.add_(total.view_as(grad_input))


def _bin_edges(
    first: Tensor, last: Tensor, spatial_scale: float, bins: int, limit: int
) -> tuple[Tensor, Tensor]:
    """Start and end pixel (exclusive) of each bin along one axis, each (K, bins), int64."""
    start = first * spatial_scale
    extent = (last + 1) * spatial_scale - start
    step = (extent / bins)[:, None]
    number = torch.arange(bins, device=first.device)
    low = (number * step + start[:, None]).floor_().clamp_(0, limit).long()
    high = ((number + 1) * step + start[:, None]).ceil_().clamp_(0, limit).long()
    # Malformed RoIs and bins outside of the map pool nothing.
    return low, torch.where((extent > 0)[:, None], high, low).maximum(low)


def _chunks(sizes: list[list[int]], cost: int) -> Iterator[list[int]]:
    """Split RoIs into chunks whose bins, padded to the largest, stay below ``GATHER_LIMIT``.

    RoIs are sorted by bin size, so that one large RoI does not pad all others.
    """
    chunk: list[int] = []
    tall = wide = 0
    for k in sorted(range(len(sizes)), key=lambda k: sizes[k][0] * sizes[k][1]):
        grown = max(tall, sizes[k][0]), max(wide, sizes[k][1])
        if chunk and (len(chunk) + 1) * grown[0] * grown[1] * cost > GATHER_LIMIT:
            yield chunk
            chunk, grown = [], (sizes[k][0], sizes[k][1])
        chunk.append(k)
        tall, wide = grown
    if chunk:
        yield chunk
