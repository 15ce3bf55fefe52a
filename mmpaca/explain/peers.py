"""Other methods of attribution, for comparison; all return (D, H, W) over the network's input."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmpaca.compat import require

from .recorder import find_backbone, record
from .scene import Detection, Scene
from .subject import Subject
from .trace import trace


def looked_at(subject: Subject, detections: Sequence[Detection]) -> Tensor:
    """Attention A Z of the detection's patches in the first stage with clusters, its last block.

    This is what the cluster page showed before it had :func:`mmpaca.explain.attribute`.
    """
    with torch.no_grad(), record(subject.model, 'last') as recording:
        subject.logits(subject.inputs, detections)
    block = recording.last_blocks()[0]
    scene = Scene(subject.image, subject.geometry, [block], (), list(detections))
    heat = [torch.from_numpy(scene.relevance(block, one)) for one in detections]
    return _enlarge(torch.stack(heat), subject)


def attention(subject: Subject, detections: Sequence[Detection]) -> Tensor:
    """Plain attention of the detection's patches in the last block without clusters.

    Raises:
        ValueError: every stage has clusters.
    """
    backbone = find_backbone(subject.model)
    with torch.no_grad(), trace(backbone) as traced:
        subject.logits(subject.inputs, detections)
    plain = [i for i, clusters in enumerate(backbone.num_clusters) if not clusters]
    if not plain:
        raise ValueError(
            f"method='attention' needs a stage without clusters, num_clusters="
            f'{backbone.num_clusters} has none'
        )
    block = traced.blocks[plain[0]][-1]
    q, k = (x[0].unflatten(-1, (block.num_heads, -1)).transpose(0, 1) for x in (block.q, block.k))
    rows = (q @ k.transpose(1, 2) / math.sqrt(q.shape[-1])).softmax(-1).mean(0)  # (N, N)
    height, width = block.x.shape[1:3]
    stride = round(subject.inputs.shape[2] / height)
    heat = []
    for detection in detections:
        covered = subject.geometry.to_map(detection.mask, stride, (height, width))
        weights = torch.from_numpy(covered).nan_to_num().flatten().to(rows)
        heat.append((weights @ rows).unflatten(0, (height, width)))
    return _enlarge(torch.stack(heat), subject)


def eigen_cam(subject: Subject, detections: Sequence[Detection]) -> Tensor:
    """Eigen-CAM (Muhammad and Yeasin, 2020): first principal component, the same for all classes."""
    maps: list[Tensor] = []
    layer = _layer(subject.model)
    handle = layer.register_forward_hook(lambda *args: maps.extend(_as_tuple(args[2])))
    try:
        with torch.no_grad():
            subject.logits(subject.inputs, detections)
    finally:
        handle.remove()
    levels = []
    for features in maps:
        x = features[0].flatten(1).T  # (1, C, h, w) -> (h * w, C)
        first = torch.linalg.svd(x - x.mean(0), full_matrices=False).Vh[0]
        heat = (x @ first).view(features.shape[2:])
        heat = heat if heat.sum() >= 0 else -heat  # the sign of a component is free
        heat = heat.clamp(min=0)
        levels.append(_enlarge((heat / heat.max().clamp(min=1e-12))[None], subject))
    return torch.stack(levels).mean(0).expand(len(detections), -1, -1)


def grad_cam(subject: Subject, detections: Sequence[Detection]) -> Tensor:
    """Grad-CAM (Selvaraju et al., 2017) at the outputs of the neck, by captum, levels added."""
    return _captum_layer(subject, detections, 'LayerGradCam')


def hires_cam(subject: Subject, detections: Sequence[Detection]) -> Tensor:
    """HiResCAM (Draelos and Carin, 2020) at the outputs of the neck, by captum.

    Gradient times activation at every place, as ODAM (Zhao and Chan, 2023) computes it for detectors.
    """
    return _captum_layer(subject, detections, 'LayerGradientXActivation')


def gradient(subject: Subject, detections: Sequence[Detection]) -> Tensor:
    """Gradient times input (Shrikumar et al., 2016), by captum, absolute sum over the channels."""
    method = _captum().InputXGradient(lambda inputs: subject.logits(inputs, detections)[None])
    return torch.cat(
        [
            method.attribute(subject.inputs.detach().requires_grad_(), target=i).sum(1).abs()
            for i in range(len(detections))
        ]
    ).detach()


def gaussian(subject: Subject, detections: Sequence[Detection]) -> Tensor:
    """Gaussian at the centre of the box, whose sides are four standard deviations."""
    height, width = subject.inputs.shape[2:]
    rows, columns = (torch.arange(n) + 0.5 for n in (height, width))
    heat = []
    for box in subject.geometry.boxes_to_input(np.array([d.box for d in detections])).tolist():
        axes = ((columns, box[0], box[2]), (rows, box[1], box[3]))
        x, y = (
            torch.exp(-8 * ((places - (low + high) / 2) / max(high - low, 1)) ** 2)
            for places, low, high in axes
        )
        heat.append(y[:, None] * x)
    return torch.stack(heat)


def random(subject: Subject, detections: Sequence[Detection]) -> Tensor:
    """Uniform noise, always the same."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand(len(detections), *subject.inputs.shape[2:], generator=generator)


def _captum() -> Any:
    require('captum')
    import captum.attr

    return captum.attr


def _captum_layer(subject: Subject, detections: Sequence[Detection], name: str) -> Tensor:
    layer = _layer(subject.model)
    seen: list[Tensor] = []
    handle = layer.register_forward_hook(lambda *args: seen.extend(_as_tuple(args[2])))

    def forward(inputs: Tensor) -> Tensor:
        seen.clear()
        logits = subject.logits(inputs, detections)
        # captum wants a gradient of every level; a box is read from one of them.
        return (logits + sum(0 * level.sum() for level in seen))[None]

    method = getattr(_captum(), name)(forward, layer)
    heat = []
    try:
        for i in range(len(detections)):
            inputs = subject.inputs.detach().requires_grad_()
            maps = _as_tuple(method.attribute(inputs, target=i))
            levels = [
                m.detach().sum(1).clamp(min=0) for m in maps
            ]  # (1, C or 1, h, w) -> (1, h, w)
            heat.append(torch.stack([_enlarge(m, subject)[0] for m in levels]).sum(0))
    finally:
        handle.remove()
    return torch.stack(heat)


def _layer(model: Any) -> nn.Module:
    """The neck of a detector, else the backbone: what returns the last maps."""
    has_boxes = hasattr(model, 'bbox_head') or hasattr(model, 'roi_head')
    return model.neck if has_boxes and model.with_neck else model.backbone


def _as_tuple(maps: Any) -> tuple[Tensor, ...]:
    return maps if isinstance(maps, tuple) else tuple(maps) if isinstance(maps, list) else (maps,)


def _enlarge(maps: Tensor, subject: Subject) -> Tensor:
    """Interpolate maps (D, h, w) to the network's input, (D, H, W)."""
    size = tuple(subject.inputs.shape[2:])
    return F.interpolate(maps[None], size=size, mode='bilinear', align_corners=False)[0]
