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
    them first onto the blurred image.

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
    image, grey, ground = subject.inputs, mean_colour(subject), blurred(subject)
    curves: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for part in shares.split(subject.batch_size):
        changed = (gone < part[:, None, None])[:, None]  # (B, 1, H, W)
        deleted, inserted = torch.where(changed, grey, image), torch.where(changed, image, ground)
        for curve, images in zip(curves, (deleted, inserted), strict=True):
            curve.append(subject.scores(images, [detection])[:, 0])
    return np.concatenate(curves[0]), np.concatenate(curves[1])


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
    shown = out[..., :height, :width]
    for size in (
        [2 * radius + 1, 1],
        [1, 2 * radius + 1],
    ):  # as one kernel, at its square root of work
        shown = gaussian_blur(shown, size, sigma)
    out[..., :height, :width] = shown
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
    for first in range(0, masks, subject.batch_size):
        count = min(subject.batch_size, masks - first)
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
