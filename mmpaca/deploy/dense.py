"""Dense heads: RetinaNet, ATSS, FCOS, RTMDet, every head that predicts as mmdet's BaseDenseHead.

Source: ``mmdet/models/dense_heads/base_dense_head.py`` and ``rpn_head.py``.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .boxes import decode_deltas, decode_distances, image_limit, padded, priors_at, select, take
from .images import Normalise
from .ops import NO_CANDIDATE


class Candidates(NamedTuple):
    """Boxes before NMS: (B, N, ...).

    Attributes:
        boxes: (B, N, 4), in pixels of the network's input.
        scores: (B, N), NO_CANDIDATE for those below the threshold.
        labels: (B, N) int64.
        priors: (B, N, 4 or 2).
        levels: (B, N) int64.
        extra: (B, N, D), rows of a further output of the head; D may be 0.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    priors: Tensor
    levels: Tensor
    extra: Tensor


def per_prior(x: Tensor, channels: int) -> Tensor:
    """(B, A * channels, H, W) to (B, H * W * A, channels)."""
    return x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, channels)


def top(scores: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """Best values of (B, N) and their indices: (B, number), filled with -inf and 0 if N is less.

    A fixed number, and not the smaller of the two, keeps all later sizes known.

    Args:
        scores: (B, N).
        number: all, if it is not positive.
    """
    count = scores.shape[1]
    if number <= 0 or (isinstance(count, int) and count <= number):
        return scores.topk(count)
    values, index = F.pad(scores, (0, number), value=-math.inf).topk(number)
    return values, torch.where(values > -math.inf, index, 0)


def level_candidates(
    head: Any,
    cfg: Any,
    level: int,
    maps: tuple[Tensor, Tensor, Tensor | None, Tensor | None],
    limit: Tensor,
) -> Candidates:
    """The best ``nms_pre`` pairs of prior and class of a level.

    Args:
        head: dense head.
        cfg: its test config.
        level: index of the feature map.
        maps: classification, regression, and None or score factors and a further output, each
            (B, A * channels, H, W).
        limit: width, height, width, height of the images.
    """
    cls_map, box_map, factor_map, extra_map = maps
    width = cls_map.shape[3]
    logits = per_prior(cls_map, head.cls_out_channels)
    if not head.use_sigmoid_cls:
        logits = logits.softmax(-1)[..., :-1]
    classes, nms_pre = logits.shape[2], cfg.get('nms_pre', -1)
    # The best pairs lie in the priors of the best pairs: most priors are dropped before sorting.
    best, prior_index = top(logits.amax(2), nms_pre)
    if head.num_classes > 1:
        pairs = take(logits, prior_index)
        pairs = torch.where(best[..., None] > -math.inf, pairs, -math.inf)
        best, pair = top(pairs.flatten(1), nms_pre)  # of (B, K * C)
        label = pair % classes
        prior_index = prior_index.gather(1, pair // classes)
    else:
        label = torch.zeros_like(prior_index)
    scores = best.sigmoid() if head.use_sigmoid_cls else best
    valid = (scores > cfg.get('score_thr', NO_CANDIDATE)) & (best > -math.inf)
    if factor_map is not None:
        factors = per_prior(factor_map, 1)[..., 0]
        scores = scores * factors.gather(1, prior_index).sigmoid()
    priors = priors_at(head.prior_generator, level, prior_index, width)
    decode = decode_deltas if hasattr(head.bbox_coder, 'stds') else decode_distances
    boxes = decode(priors, take(per_prior(box_map, 4), prior_index), head.bbox_coder, limit)
    extra = priors[..., :0]
    if extra_map is not None:
        extra = take(per_prior(extra_map, head.num_gen_params), prior_index)
    scores = torch.where(valid, scores, NO_CANDIDATE)
    return Candidates(boxes, scores, label, priors, torch.full_like(label, level), extra)


def candidates(
    head: Any, cfg: Any, outputs: Sequence[Sequence[Tensor]], limit: Tensor, extra: bool = False
) -> Candidates:
    """Candidates of all levels.

    Args:
        head: dense head.
        cfg: its test config.
        outputs: what the head returns: classification and regression maps and, if it has them,
            score factors, each with one map (B, C, H, W) per level.
        limit: width, height, width, height of the images.
        extra: the third output is not a score factor; its rows are kept.
    """
    cls_maps, box_maps, *rest = outputs
    none = [None] * len(cls_maps)
    third = rest[0] if rest else none
    factors, extras = (none, third) if extra else (third, none)
    levels = [
        level_candidates(head, cfg, level, maps, limit)
        for level, maps in enumerate(zip(cls_maps, box_maps, factors, extras, strict=True))
    ]
    return Candidates(*(torch.cat(parts, 1) for parts in zip(*levels, strict=True)))


def drop_small(found: Candidates, cfg: Any) -> Candidates:
    """Drop boxes whose sides are not above ``min_bbox_size``, if the config sets it."""
    smallest = cfg.get('min_bbox_size', -1)
    if smallest < 0:
        return found
    size = found.boxes[..., 2:] - found.boxes[..., :2]
    large = (size > smallest).all(-1)
    return found._replace(scores=torch.where(large, found.scores, NO_CANDIDATE))


class DenseDetector(nn.Module):
    """Backbone, neck and a dense head.

    Args:
        model: SingleStageDetector of mmdet.
    """

    outputs = ('boxes', 'scores', 'labels')

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model: Any = model
        self.normalise = Normalise(model.data_preprocessor)

    def forward(self, image: Tensor, scale: Tensor) -> tuple[Tensor, ...]:
        """Detect.

        Args:
            image: (B, 3, H, W) RGB, values 0 to 255.
            scale: (4,), width, height, width, height of the original image over the network's.

        Returns:
            Boxes (B, K, 4) in the original image's pixels, scores (B, K), labels (B, K).
        """
        head, cfg = self.model.bbox_head, self.model.test_cfg
        outputs = head(self.model.extract_feat(self.normalise(image)))
        found = candidates(head, cfg, outputs, image_limit(image))
        found = drop_small(found._replace(boxes=found.boxes * scale), cfg)
        index = select(found.boxes, found.scores, found.labels, cfg)
        return padded(index, found.boxes, found.scores, found.labels)
