"""Two-stage detectors: Faster and Mask R-CNN, Cascade R-CNN and Cascade Mask R-CNN.

Source: ``mmdet/models/roi_heads``: standard_roi_head.py, cascade_roi_head.py, bbox_heads/bbox_head.py,
mask_heads/fcn_mask_head.py, roi_extractors/single_level_roi_extractor.py.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import roi_align

from .boxes import decode_deltas, image_limit, padded, select, take
from .dense import candidates, drop_small
from .images import Normalise
from .mask_head import OwnClassMask
from .ops import NO_CANDIDATE


def pool(extractor: Any, feats: Sequence[Tensor], rois: Tensor) -> tuple[Tensor, Tensor]:
    """Pool each RoI from the level that fits its size.

    Args:
        extractor: SingleRoIExtractor.
        feats: feature maps.
        rois: (R, 5), image index and box.

    Returns:
        Features (R, C, h, w), in order of level, and that order (R,).
    """
    area = (rois[:, 3] - rois[:, 1]) * (rois[:, 4] - rois[:, 2])
    level = torch.floor(torch.log2(area.sqrt() / extractor.finest_scale + 1e-6))
    level = level.clamp(0, extractor.num_inputs - 1)
    pooled, order = [], []
    for i, layer in enumerate(extractor.roi_layers):
        index = (level == i).nonzero()[:, 0]
        torch._check(index.shape[0] < 2**32)  # else the bound of the sum exceeds ONNX's int64
        scale, ratio = layer.spatial_scale, layer.sampling_ratio
        pooled.append(
            roi_align(feats[i], rois[index], layer.output_size, scale, ratio, layer.aligned)
        )
        order.append(index)
    return torch.cat(pooled), torch.cat(order)


def as_list(heads: nn.Module) -> list[Any]:
    """The stages of a cascade, or one."""
    return [*heads] if isinstance(heads, nn.ModuleList) else [heads]


def refine(head: Any, rois: Tensor, logits: Tensor, deltas: Tensor, limit: Tensor) -> Tensor:
    """RoIs (R, 5) for the next stage of a cascade; deltas (R, C or 1, 4) of the best class."""
    if deltas.shape[1] > 1:
        best = logits[:, :-1].argmax(1)[:, None, None].expand(-1, 1, 4)
        deltas = deltas.gather(1, best)
    boxes = decode_deltas(rois[:, 1:], deltas[:, 0], head.bbox_coder, limit)
    return torch.cat((rois[:, :1], boxes), 1)


class TwoStageDetector(nn.Module):
    """Backbone, neck, RPN and RoI heads.

    Masks are probabilities in the frame of their box, (B, K, 28, 28) mostly: pasting them needs no
    network, and full-size masks would be hundreds of megabytes.

    Args:
        model: TwoStageDetector of mmdet.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model: Any = model
        self.normalise = Normalise(model.data_preprocessor)
        self.outputs: tuple[str, ...] = ('boxes', 'scores', 'labels')
        if model.roi_head.with_mask:
            self.outputs += ('masks',)
            self.mask_heads = nn.ModuleList(map(OwnClassMask, as_list(model.roi_head.mask_head)))

    def forward(self, image: Tensor, scale: Tensor) -> tuple[Tensor, ...]:
        """Detect; see :meth:`mmpaca.deploy.dense.DenseDetector.forward`."""
        limit = image_limit(image)
        feats = self.model.extract_feat(self.normalise(image))
        boxes, scores, labels = self.classify(feats, self.propose(feats, limit), limit)
        cfg = self.model.roi_head.test_cfg
        if not self.model.roi_head.with_mask:  # mmdet scales before NMS
            boxes = boxes * scale
        index = select(boxes, scores, labels, cfg)
        boxes, scores, labels = padded(index, boxes, scores, labels)
        if not self.model.roi_head.with_mask:
            return boxes, scores, labels
        return boxes * scale, scores, labels, self.segment(feats, boxes, labels)

    def propose(self, feats: Sequence[Tensor], limit: Tensor) -> tuple[Tensor, Tensor]:
        """Run the RPN: RoIs (R, 5) and the place of each in B rows of ``max_per_img``."""
        head, cfg = self.model.rpn_head, self.model.test_cfg.rpn
        found = candidates(head, cfg, head(feats), limit)
        found = drop_small(found, cfg)
        index = select(found.boxes, found.scores, found.levels, cfg)  # NMS per level
        boxes = take(found.boxes, index)
        return as_rois(boxes, index >= 0)

    def classify(
        self, feats: Sequence[Tensor], proposals: tuple[Tensor, Tensor], limit: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Run the box heads on RoIs and their places.

        Returns:
            Boxes (B, K * C, 4), scores and labels (B, K * C), for K proposals and C classes.
        """
        rois, place = proposals
        roi_head, cfg = self.model.roi_head, self.model.roi_head.test_cfg
        heads, total = as_list(roi_head.bbox_head), torch.zeros(())
        extractors = as_list(roi_head.bbox_roi_extractor)
        for head, extractor in zip(heads, extractors, strict=True):
            pooled, order = pool(extractor, feats[: extractor.num_inputs], rois)
            rois, place = rois[order], place[order]
            logits, deltas = head(pooled)
            deltas = deltas.unflatten(1, (-1, 4))  # (R, C or 1, 4)
            total = logits if head is heads[0] else total[order] + logits
            if head is not heads[-1]:
                rois = refine(head, rois, logits, deltas, limit)
        scores = (total / len(heads)).softmax(-1)[:, :-1]  # (R, C)
        scores = torch.where(scores > cfg.score_thr, scores, NO_CANDIDATE)
        boxes = decode_deltas(
            rois[:, None, 1:].expand(-1, deltas.shape[1], -1), deltas, head.bbox_coder, limit
        )
        batch, most = feats[0].shape[0], self.model.test_cfg.rpn.max_per_img
        classes = scores.shape[1]
        # (R, ...) -> (B * K, ...): one row per proposal, whether it exists or not
        all_scores = scores.new_full((batch * most, classes), NO_CANDIDATE)
        all_scores = all_scores.index_put((place,), scores)
        all_boxes = boxes.new_zeros((batch * most, boxes.shape[1], 4)).index_put((place,), boxes)
        labels = torch.arange(classes, device=place.device).repeat(most)
        return (
            all_boxes.expand(-1, classes, -1).reshape(batch, most * classes, 4),
            all_scores.view(batch, most * classes),
            labels.expand(batch, -1),
        )

    def segment(self, feats: Sequence[Tensor], boxes: Tensor, labels: Tensor) -> Tensor:
        """Run the mask heads: boxes (B, K, 4), labels (B, K) to probabilities (B, K, h, w)."""
        roi_head = self.model.roi_head
        rois, place = as_rois(boxes, labels >= 0)
        labels = labels.flatten()[place]
        extractors = as_list(roi_head.mask_roi_extractor)
        masks = []
        for head, extractor in zip(self.mask_heads, extractors, strict=True):
            pooled, order = pool(extractor, feats[: extractor.num_inputs], rois)
            logits = head(pooled, labels[order])  # (R, h, w)
            rows = boxes.shape[0] * boxes.shape[1]
            empty = logits.new_zeros((rows, *logits.shape[1:]))
            masks.append(empty.index_put((place[order],), logits.sigmoid()))
        return (sum(masks) / len(masks)).unflatten(0, boxes.shape[:2])


def as_rois(boxes: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of boxes (B, K, 4) that are valid (B, K): RoIs (R, 5) and their place in B * K rows."""
    place = valid.flatten().nonzero()[:, 0]
    image = place // boxes.shape[1]
    rois = torch.cat((image[:, None].to(boxes), boxes.flatten(0, 1)[place]), 1)
    return rois, place
