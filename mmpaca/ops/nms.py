"""Non-maximum suppression. Serves the calls of mmcv/ops/nms.py.

Boxes are (x1, y1, x2, y2) in pixels; with ``offset`` 1 a box is x2 - x1 + 1 wide, as in the
pixel-index convention of older detectors.
"""

import numpy as np
import torch
import torchvision  # noqa: F401  registers torch.ops.torchvision
from torch import Tensor

from .precision import working_dtype

SOFT_NMS_METHODS = {0: 'naive', 1: 'linear', 2: 'gaussian'}


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Hard NMS: indices of the kept boxes by descending score, ties in input order.

    A box is suppressed if its IoU with a box of higher score is strictly above the threshold. Two
    boxes of zero area (IoU 0/0) do not suppress each other.

    Args:
        boxes: (N, 4), any floating dtype; may differ from that of the scores.
        scores: (N,).
        iou_threshold: IoU in [0, 1].
        offset: 0 or 1.

    Returns:
        (K,) int64 on the device of the boxes.
    """
    if boxes.numel() == 0:
        return boxes.new_empty(0, dtype=torch.long)
    dtype = working_dtype(boxes, scores)
    boxes = boxes.to(dtype)
    if dtype == torch.float32:
        # torchvision compares a float32 IoU with a double, so that an IoU of exactly 0.3 would
        # exceed the threshold 0.3. mmcv rounds the threshold, too.
        iou_threshold = float(np.float32(iou_threshold))
    if offset:
        boxes = torch.cat((boxes[:, :2], boxes[:, 2:] + offset), dim=1)
    return torch.ops.torchvision.nms(boxes, scores.to(dtype), iou_threshold)


def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Soft-NMS: decay the scores of overlapping boxes and drop boxes below ``min_score``.

    Equals mmcv's C++ implementation, including the order of equal scores, which depends on how it
    moves the last box into the place of a dropped one. One difference: with ``gaussian``, boxes of
    zero area at the same place (IoU 0/0) do not affect each other; in C++ their scores become NaN.

    Args:
        boxes: (N, 4) on the CPU, where mmcv puts them.
        scores: (N,).
        dets: (N, 5), overwritten: row k is the k-th returned box and its decayed score. Later rows
            are not changed.
        iou_threshold: IoU above which ``naive`` and ``linear`` decay scores (not ``gaussian``).
        sigma: width of ``gaussian``: a score is multiplied by exp(-IoU^2 / sigma).
        min_score: boxes whose decayed score is below this are dropped. The best box is always kept.
        method: 0 naive (hard), 1 linear (times 1 - IoU), 2 gaussian.
        offset: 0 or 1.

    Returns:
        (K,) int64, in order of selection.

    Raises:
        ValueError: ``method`` is unknown.
    """
    if method not in SOFT_NMS_METHODS:
        raise ValueError(f'soft-NMS method={method!r} is unknown, choose one of {SOFT_NMS_METHODS}')
    if boxes.numel() == 0:
        return boxes.new_empty(0, dtype=torch.long)
    box, area, score = _as_arrays(boxes, scores, offset)
    number = box.dtype.type
    iou_threshold, sigma, min_score = number(iou_threshold), number(sigma), number(min_score)
    index = np.arange(len(score))
    columns = (box, area, score, index)

    current, count = 0, len(score)
    while current < count:
        best = current + score[current:count].argmax()
        for column in columns:
            column[[current, best]] = column[[best, current]]
        current += 1
        rest = slice(current, count)
        iou = _iou(box[current - 1], area[current - 1], box[rest], area[rest], offset)
        score[rest] *= _decay(iou, iou_threshold, sigma, method)
        stays = ~(score[rest] < min_score)
        count = current + int(stays.sum())
        if not stays.all():
            # Fill every gap in front with a survivor from the end, the last one first.
            survivors = stays.nonzero()[0] + current
            gaps = (~stays[: count - current]).nonzero()[0] + current
            fillers = survivors[survivors >= count][::-1]
            for column in columns:
                column[gaps] = column[fillers]

    dets[:count, :4] = torch.from_numpy(box[:count]).to(dets)
    dets[:count, 4] = torch.from_numpy(score[:count]).to(dets)
    return torch.from_numpy(index[:count])


def nms_match(dets: Tensor, iou_threshold: float) -> list[list[int]]:
    """Group boxes by the box that suppresses them in hard NMS.

    Unlike in `nms`, an IoU equal to the threshold suppresses.

    Args:
        dets: (N, 5) on the CPU: box and score.
        iou_threshold: IoU in [0, 1].

    Returns:
        One list of indices per kept box, best first: the kept box, then those it suppressed in
        order of score.
    """
    order = dets[:, 4].sort(stable=True, descending=True).indices.numpy()
    box, area, _ = _as_arrays(dets[:, :4], dets[:, 4], offset=0)
    iou_threshold = box.dtype.type(iou_threshold)
    groups = []
    while len(order):
        first, rest = order[0], order[1:]
        suppressed = _iou(box[first], area[first], box[rest], area[rest], 0) >= iou_threshold
        groups.append([int(first), *rest[suppressed].tolist()])
        order = rest[~suppressed]
    return groups


def _as_arrays(boxes: Tensor, scores: Tensor, offset: int) -> tuple[np.ndarray, ...]:
    """Copies of boxes (N, 4), areas (N,) and scores (N,): numpy is faster on small arrays."""
    dtype = working_dtype(boxes, scores)
    box = boxes.detach().to(dtype).numpy().copy()
    score = scores.detach().to(dtype).numpy().copy()
    area = (box[:, 2] - box[:, 0] + offset) * (box[:, 3] - box[:, 1] + offset)
    return box, area, score


def _iou(
    box: np.ndarray, area: np.ndarray, boxes: np.ndarray, areas: np.ndarray, offset: int
) -> np.ndarray:
    """IoU of one box (4,) with ``boxes`` (N, 4); NaN where both areas are zero."""
    # (N, 4) -> (N, 2): width and height of the intersection
    size = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2]) + offset
    intersection = size.clip(min=0).prod(axis=1)
    with np.errstate(divide='ignore', invalid='ignore'):
        return intersection / (area + areas - intersection)


def _decay(iou: np.ndarray, iou_threshold: float, sigma: float, method: int) -> np.ndarray:
    """Factors of the scores in soft-NMS, (N,), for IoUs (N,)."""
    if method == 2:
        return np.where(np.isnan(iou), 1, np.exp(-(iou * iou) / sigma))
    return np.where(iou >= iou_threshold, 0 if method == 0 else 1 - iou, 1).astype(iou.dtype)
