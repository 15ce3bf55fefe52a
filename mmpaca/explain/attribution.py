"""Relevance of image regions to detections: one function, several methods."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from . import peers
from .perturbation import blurred, drise
from .recorder import find_backbone
from .relevance import relevance
from .scene import Detection
from .subject import Subject
from .trace import trace


def paca(subject: Subject, detections: Sequence[Detection], attention: bool = False) -> Tensor:
    """Relevance of the maps of all stages, see :func:`mmpaca.explain.relevance.relevance`.

    Carried on through the attention of the blocks it is measured to be no more faithful: docs/trust.md.
    """
    backbone = find_backbone(subject.model)
    with torch.no_grad(), trace(backbone) as reference:
        backbone(blurred(subject))
    with torch.enable_grad():
        inputs = subject.inputs.detach().requires_grad_()
        with trace(backbone) as traced:
            logits = subject.logits(inputs, detections)
        size = (inputs.shape[2], inputs.shape[3])
        return relevance(traced, reference, [*logits], size, attention)


#: Methods of :func:`attribute` by name; all but the first are for comparison.
METHODS: dict[str, Callable[[Subject, Sequence[Detection]], Tensor]] = dict(
    paca=paca,
    paca_flow=partial(paca, attention=True),
    d_rise=drise,
    grad_cam=peers.grad_cam,
    hires_cam=peers.hires_cam,
    eigen_cam=peers.eigen_cam,
    gradient=peers.gradient,
    looked_at=peers.looked_at,
    attention=peers.attention,
    gaussian=peers.gaussian,
    random=peers.random,
)


def attribute(
    model: nn.Module,
    image: np.ndarray,
    detections: Sequence[Detection],
    method: str = 'paca',
) -> np.ndarray:
    """Map which parts of an image the scores of detections rest on.

    Args:
        model: detector, classifier or segmentor with a PaCaViT and its config in ``model.cfg``, as
            ``init_detector`` and the inferencers open it.
        image: (height, width, 3) uint8 RGB.
        detections: detections of the image, as
            :func:`mmpaca.explain.scene.read_detections` reads them from a prediction; only label,
            box and, of a segmentor, mask are used.
        method: a key of ``METHODS``.

    Returns:
        (len(detections), height, width) float32 >= 0, one unit for all detections of the image.

    Raises:
        ValueError: the method is unknown, the image is invalid, or the model is not covered.
    """
    if method not in METHODS:
        raise ValueError(f'method={method!r} is unknown, choose one of {", ".join(METHODS)}')
    return apply(method, Subject(model, image), detections)


def apply(method: str, subject: Subject, detections: Sequence[Detection]) -> np.ndarray:
    """Do the same for an image that is prepared already."""
    if not detections:
        return np.zeros((0, *subject.image.shape[:2]), np.float32)
    maps = METHODS[method](subject, detections).cpu().numpy()
    return subject.geometry.to_image(maps, 1).astype(np.float32)


def contrast(maps: np.ndarray, other: np.ndarray | None = None) -> np.ndarray:
    """Keep what is relevant to a detection more than to others.

    Args:
        maps: maps of one image, (D, height, width) >= 0.
        other: (height, width) to compare with, for example the map of another detection; None for
            the mean of ``maps``.

    Returns:
        (D, height, width) >= 0, the share of a map's relevance at each pixel minus that of
        ``other``, where it is more.
    """
    shares = maps / np.maximum(maps.sum((1, 2), keepdims=True), np.finfo(maps.dtype).tiny)
    reference = shares.mean(0) if other is None else other / max(other.sum(), 1e-30)
    return (shares - reference).clip(min=0)
