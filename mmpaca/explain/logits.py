"""Class logit of a detection, as a differentiable function of the network's input."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.structures import BaseDataElement
from torch import Tensor
from torchvision.ops import box_iou

from mmpaca.deploy.boxes import image_limit
from mmpaca.deploy.dense import per_prior
from mmpaca.deploy.dino import DINODetector
from mmpaca.deploy.two_stage import as_list, refine

from .geometry import Geometry
from .scene import Detection


def class_logits(
    model: Any,
    inputs: Tensor,
    sample: BaseDataElement,
    geometry: Geometry,
    detections: Sequence[Detection],
) -> Tensor:
    """Compute log(p / (1 - p)) of each detection's class, with the graph of gradients.

    Of a two-stage detector p is what the box head says of the detection's box; of a dense head or
    DINO, of the prior or query whose box and class match best; of a classifier, of the image; of a
    segmentor, the mean over the region.

    Args:
        model: detector of mmdet, classifier of mmpretrain or segmentor of mmseg.
        inputs: normalised image, (1, 3, H, W).
        sample: its data sample.
        geometry: position of the image on the network's input.
        detections: boxes in pixels of the image, regions and classes.

    Returns:
        (D,).

    Raises:
        ValueError: the model has none of the heads above.
    """
    labels = torch.tensor([d.label for d in detections], device=inputs.device)
    if hasattr(model, 'decode_head'):
        return _region_logits(model(inputs, [sample], mode='tensor'), geometry, detections)
    if hasattr(model, 'head'):
        logits = model(inputs, [sample], mode='tensor').expand(len(detections), -1)
        return log_odds(logits, labels)
    boxes = inputs.new_tensor(geometry.boxes_to_input(np.array([d.box for d in detections])))
    with_boxes = _boxes_and_logits(model, inputs)
    if with_boxes is None:
        return _roi_logits(model, inputs, boxes, labels)
    priors, logits = with_boxes
    with torch.no_grad():
        fit = box_iou(priors, boxes) * logits[:, labels].sigmoid()  # (N, D)
        best = fit.argmax(0)
    return logits[best, labels]


def log_odds(logits: Tensor, labels: Tensor) -> Tensor:
    """log(p / (1 - p)) of softmax probabilities.

    Args:
        logits: (D, K).
        labels: (D,).

    Returns:
        (D,).
    """
    own = F.one_hot(labels, logits.shape[1]).bool()
    return logits[own] - logits.masked_fill(own, -torch.inf).logsumexp(1)


def _roi_logits(model: Any, inputs: Tensor, boxes: Tensor, labels: Tensor) -> Tensor:
    """Box heads of a two-stage detector on the boxes; of a cascade the mean of its stages."""
    feats, head = model.extract_feat(inputs), model.roi_head
    rois = torch.cat((boxes.new_zeros(len(boxes), 1), boxes), 1)
    total = boxes.new_zeros(())
    heads = as_list(head.bbox_head)
    for one, extractor in zip(heads, as_list(head.bbox_roi_extractor), strict=True):
        pooled = extractor(feats[: extractor.num_inputs], rois)
        if head.with_shared_head:
            pooled = head.shared_head(pooled)
        logits, deltas = one(pooled)
        total = total + logits
        if one is not heads[-1]:
            deltas = deltas.unflatten(1, (-1, 4))
            rois = refine(one, rois, logits, deltas, image_limit(inputs)).detach()
    return log_odds(total / len(heads), labels)


def _boxes_and_logits(model: Any, inputs: Tensor) -> tuple[Tensor, Tensor] | None:
    """Decoded boxes (N, 4) and class logits (N, K) of all priors or queries; None: has RoIs."""
    from mmdet.models import DINO

    if hasattr(model, 'roi_head'):
        return None
    if isinstance(model, DINO):
        detector = DINODetector(model)
        feats = model.extract_feat(inputs)
        sizes = [feat.shape[2:] for feat in feats]
        memory = detector.encode(feats, sizes)
        query, first = detector.first_queries(memory, sizes)
        logits, boxes = detector.decode(query, first, memory, sizes)
        centre, half = boxes[0, :, :2], boxes[0, :, 2:] / 2
        return torch.cat((centre - half, centre + half), 1) * image_limit(inputs), logits[0]
    head: Any = getattr(model, 'bbox_head', None)
    if not hasattr(head, 'prior_generator') or not hasattr(head, 'bbox_coder'):
        raise ValueError(
            f'{type(model).__name__} is not covered: give a two-stage detector, one with a dense '
            'head, DINO, a classifier or a segmentor'
        )
    cls_maps, box_maps, *_ = head(model.extract_feat(inputs))
    sizes = [m.shape[2:] for m in cls_maps]
    priors = torch.cat(head.prior_generator.grid_priors(sizes, device=inputs.device))
    deltas = torch.cat([per_prior(m, 4)[0] for m in box_maps])
    boxes = head.bbox_coder.decode(priors[:, :4], deltas)
    logits = torch.cat([per_prior(m, head.cls_out_channels)[0] for m in cls_maps])
    if head.use_sigmoid_cls:
        return boxes, logits
    each = torch.arange(logits.shape[1] - 1, device=logits.device)
    return boxes, torch.stack([log_odds(logits, each[i].expand(len(logits))) for i in each], 1)


def _region_logits(logits: Tensor, geometry: Geometry, detections: Sequence[Detection]) -> Tensor:
    """Mean log-odds over the regions: logits (1, K, h, w) to (D,)."""
    size = (logits.shape[2], logits.shape[3])
    stride = -(-geometry.input_shape[0] // size[0])
    found = []
    for detection in detections:
        covered = geometry.to_map(detection.mask, stride, size)
        weights = torch.from_numpy(covered).nan_to_num().to(logits)
        labels = torch.full((weights.numel(),), detection.label, device=logits.device)
        odds = log_odds(logits[0].flatten(1).T, labels)  # (K, h, w) -> (h * w, K)
        found.append((odds * weights.flatten()).sum() / weights.sum().clamp(min=1e-6))
    return torch.stack(found)
