"""Relevance of image regions to detections: one function, several methods."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from .recorder import find_backbone
from .relevance import relevance
from .scene import Detection
from .subject import Subject
from .trace import trace

METHODS = ('paca',)


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
        method: one of :data:`METHODS`.

    Returns:
        (len(detections), height, width) float32 >= 0, one unit for all detections of the image.

    Raises:
        ValueError: the method is unknown, the image is invalid, or the model is not covered.
    """
    if method not in METHODS:
        raise ValueError(f'method={method!r} is unknown, choose one of {METHODS}')
    subject = Subject(model, image)
    if not detections:
        return np.zeros((0, *image.shape[:2]), np.float32)
    maps = _paca(subject, detections)
    return to_image(maps, subject)


def to_image(maps: Tensor, subject: Subject) -> np.ndarray:
    """Maps of the network's input, (D, H, W), to the image's pixels, float32."""
    return subject.geometry.to_image(maps.cpu().numpy(), 1).astype(np.float32)


def _paca(subject: Subject, detections: Sequence[Detection]) -> Tensor:
    with torch.enable_grad():
        inputs = subject.inputs.detach().requires_grad_()
        with trace(find_backbone(subject.model)) as traced:
            scores = subject.logits(inputs, detections)
        return relevance(traced, [*scores], tuple(inputs.shape[2:]))
