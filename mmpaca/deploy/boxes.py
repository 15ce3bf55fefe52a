"""Box arithmetic on tensors of a batch, as mmdet's coders, prior generators and NMS compute it."""

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from .ops import NO_CANDIDATE, batch_nms

_MAX_RATIO = abs(math.log(16 / 1000))  # wh_ratio_clip of mmdet's coders


def image_limit(image: Tensor) -> Tensor:
    """Return width, height, width, height of images (B, C, H, W): the limits of their boxes."""
    height, width = image.shape[2:]
    return numbers((width, height, width, height), image)


def numbers(values: Sequence[int], like: Tensor) -> Tensor:
    """Vector of sizes, which may be unknown while a graph is traced, with the type of a tensor."""
    return torch.cat([like.new_ones(1) * cast(float, torch.sym_float(value)) for value in values])


def decode_deltas(priors: Tensor, deltas: Tensor, coder: Any, limit: Tensor) -> Tensor:
    """Decode as DeltaXYWHBBoxCoder: priors and deltas (..., 4) to boxes (..., 4)."""
    deltas = deltas * deltas.new_tensor(coder.stds) + deltas.new_tensor(coder.means)
    shift, log_ratio = deltas[..., :2], deltas[..., 2:]
    centre = (priors[..., :2] + priors[..., 2:]) * 0.5
    size = priors[..., 2:] - priors[..., :2]
    shift = size * shift
    if coder.add_ctr_clamp:
        shift = shift.clamp(-coder.ctr_clamp, coder.ctr_clamp)
        log_ratio = log_ratio.clamp(max=_MAX_RATIO)
    else:
        log_ratio = log_ratio.clamp(-_MAX_RATIO, _MAX_RATIO)
    centre = centre + shift
    half = size * log_ratio.exp() * 0.5
    return _clip(torch.cat((centre - half, centre + half), -1), coder, limit)


def decode_distances(points: Tensor, distances: Tensor, coder: Any, limit: Tensor) -> Tensor:
    """Decode as DistancePointBBoxCoder: points (..., 2), distances (..., 4) to boxes (..., 4)."""
    boxes = torch.cat((points - distances[..., :2], points + distances[..., 2:]), -1)
    return _clip(boxes, coder, limit)


def _clip(boxes: Tensor, coder: Any, limit: Tensor) -> Tensor:
    return torch.minimum(boxes.clamp(min=0), limit) if coder.clip_border else boxes


def priors_at(generator: Any, level: int, index: Tensor, width: int) -> Tensor:
    """Compute priors from their indices.

    Args:
        generator: AnchorGenerator or MlvlPointGenerator.
        level: index of the feature map.
        index: (B, K), in the order of ``generator.grid_priors``.
        width: width of the feature map.

    Returns:
        Anchors (B, K, 4) or points (B, K, 2).
    """
    per_cell = generator.num_base_priors[level]
    cell = index // per_cell
    y = cell // width
    x = cell - y * width  # torch.onnx has no % for a width that is not known
    stride = index.new_tensor(generator.strides[level]).float()
    position = torch.stack((x, y), -1).float()
    if not hasattr(generator, 'base_anchors'):
        return (position + generator.offset) * stride
    shift = (position * stride).repeat(1, 1, 2)
    base = generator.base_anchors[level].to(shift)
    return base[index - cell * per_cell] + shift


def take(x: Tensor, index: Tensor) -> Tensor:
    """Pick rows: x (B, N, C) and index (B, K) to (B, K, C); -1 gives the first row."""
    return x.gather(1, index.clamp(min=0)[..., None].expand(-1, -1, x.shape[-1]))


def select(boxes: Tensor, scores: Tensor, groups: Tensor, cfg: Any) -> Tensor:
    """NMS within groups, as mmcv's batched_nms: boxes of another group are moved out of reach.

    Args:
        boxes: (B, N, 4).
        scores: (B, N), NO_CANDIDATE for rows to be ignored.
        groups: (B, N), label or level.
        cfg: ``nms`` and ``max_per_img``.

    Returns:
        (B, max_per_img) indices by descending score, then -1.
    """
    if not cfg.nms.get('class_agnostic', False):
        candidates = torch.where((scores > NO_CANDIDATE)[..., None], boxes, 0.0)
        reach = candidates.flatten(1).amax(1)[:, None] + 1
        boxes = boxes + (groups.to(boxes) * reach)[..., None]
    return batch_nms(boxes, scores, cfg.max_per_img, cfg.nms.iou_threshold)


def padded(index: Tensor, boxes: Tensor, scores: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
    """Pick the rows of an index (B, K) that ends with -1: there boxes and scores are 0, labels -1.

    Args:
        index: result of :func:`select`.
        boxes: (B, N, 4).
        scores: (B, N).
        labels: (B, N) int64.

    Returns:
        (B, K, 4), (B, K) and (B, K).
    """
    valid = index >= 0
    kept = index.clamp(min=0)
    return (
        torch.where(valid[..., None], take(boxes, index), 0.0),
        torch.where(valid, scores.gather(1, kept), 0.0),
        torch.where(valid, labels.gather(1, kept), -1),
    )
