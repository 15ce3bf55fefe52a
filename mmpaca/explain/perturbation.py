"""Perturbed images: what happens to a detection's score when relevant pixels go, or come alone."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from .scene import Detection
from .subject import Subject

_BLUR = 0.1  # standard deviation, of the longer side


def deletion_insertion(
    subject: Subject, heat: np.ndarray, detection: Detection, steps: int = 32
) -> tuple[np.ndarray, np.ndarray]:
    """Compute the deletion and insertion curve of a map (Petsiuk et al., 2018 and 2021).

    Deletion replaces the most relevant pixels first, by the image's mean colour; insertion puts
    them first onto the blurred image. All images of both curves are one batch.

    Args:
        subject: the image and its model.
        heat: relevance, (height, width) of the image.
        detection: the detection whose score is followed.
        steps: number of steps, of equally many pixels.

    Returns:
        Scores at 0, 1 / steps, ..., 1 of the pixels, (steps + 1,) each.
    """
    gone = torch.from_numpy(_order(subject, heat)).to(subject.inputs)
    shares = torch.arange(steps + 1, device=gone.device) / steps
    changed = (gone < shares[:, None, None])[:, None]  # (steps + 1, 1, H, W)
    image = subject.inputs
    deleted = torch.where(changed, mean_colour(subject), image)
    inserted = torch.where(changed, image, blurred(subject))
    scores = subject.scores(torch.cat((deleted, inserted)), [detection])[:, 0]
    return scores[: steps + 1], scores[steps + 1 :]


def mean_colour(subject: Subject) -> Tensor:
    """Mean colour of the image as the network sees it, (1, 3, 1, 1); padding does not count."""
    height, width = subject.geometry.input_shape
    return subject.inputs[..., :height, :width].mean((2, 3), keepdim=True)


def blurred(subject: Subject) -> Tensor:
    """The network's input with a blurred image, (1, 3, H, W); padding stays as it is."""
    height, width = subject.geometry.input_shape
    sigma = _BLUR * max(height, width)
    radius = min(int(2 * sigma), min(height, width) - 1)  # reflected at the border
    out = subject.inputs.clone()
    out[..., :height, :width] = gaussian_blur(out[..., :height, :width], 2 * radius + 1, sigma)
    return out


def drise(
    subject: Subject, detections: Sequence[Detection], masks: int = 1000, cells: int = 16
) -> Tensor:
    """D-RISE (Petsiuk et al., 2021): masks weighted by the scores that survive them.

    One set of masks serves all detections of the image.

    Args:
        subject: the image and its model.
        detections: D detections.
        masks: number of random masks.
        cells: side of their grid, half of whose cells is visible.

    Returns:
        (D, H, W) over the network's input.
    """
    height, width = subject.inputs.shape[2:]
    generator = torch.Generator().manual_seed(0)
    grey, device = mean_colour(subject), subject.inputs.device
    total = torch.zeros(len(detections), height, width, device=device)
    chunk = max(1, 2**20 // (height * width))
    for first in range(0, masks, chunk):
        count = min(chunk, masks - first)
        visible = random_masks(count, cells, (height, width), generator).to(device)
        scores = subject.scores(grey + (subject.inputs - grey) * visible[:, None], detections)
        total += torch.einsum('bd,bhw->dhw', torch.from_numpy(scores).to(visible), visible)
    return total / (masks / 2)


def random_masks(
    count: int, cells: int, size: tuple[int, int], generator: torch.Generator
) -> Tensor:
    """Smooth random masks, (count, height, width) in 0..1, as RISE draws them."""
    height, width = size
    step = -(-height // cells), -(-width // cells)
    grid = (torch.rand(count, 1, cells + 1, cells + 1, generator=generator) < 0.5).float()
    large = torch.nn.functional.interpolate(
        grid, size=((cells + 1) * step[0], (cells + 1) * step[1]), mode='bilinear'
    )
    shifts = [torch.randint(n, (count,), generator=generator).tolist() for n in step]
    return torch.stack(
        [
            mask[0, top : top + height, left : left + width]
            for mask, top, left in zip(large, *shifts, strict=True)
        ]
    )


def _order(subject: Subject, heat: np.ndarray) -> np.ndarray:
    """Share of the image's pixels that are more relevant, on the network's input; 1 on padding."""
    order = np.empty(heat.size, np.float32)
    order[np.argsort(-heat, axis=None, kind='stable')] = np.arange(heat.size) / heat.size
    placed = np.ones(subject.inputs.shape[2:], np.float32)
    height, width = subject.geometry.input_shape
    placed[:height, :width] = subject.geometry.to_input(order.reshape(heat.shape))
    return placed
