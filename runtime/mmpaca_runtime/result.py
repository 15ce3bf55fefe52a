"""What a model found in an image."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

# Far apart in hue, repeated from the ninth class on.
COLOURS = np.array(
    [
        (230, 25, 75),
        (60, 180, 75),
        (0, 130, 200),
        (245, 130, 48),
        (145, 30, 180),
        (70, 240, 240),
        (240, 50, 230),
        (128, 128, 0),
    ],
    np.uint8,
)


@dataclass
class Result:
    """Detections or classes of an image, best first.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        boxes: (N, 4) left, top, right, bottom in pixels; None for a classifier.
        scores: (N,).
        labels: (N,) indices of ``classes``.
        masks: (N, H, W) bool, or None.
        classes: class names of the model.
    """

    image: np.ndarray
    boxes: np.ndarray | None
    scores: np.ndarray
    labels: np.ndarray
    masks: np.ndarray | None
    classes: list[str]

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def names(self) -> list[str]:
        """Class name of each detection."""
        return [self._name(label) for label in self.labels]

    def _name(self, label: int) -> str:
        return self.classes[label] if label < len(self.classes) else f'class {label}'

    def draw(self, score_thr: float = 0.0) -> Image.Image:
        """Draw boxes, masks, names and scores; of a classifier the five best classes."""
        picture = self.image.copy()
        order = [k for k in range(len(self)) if self.scores[k] >= score_thr][::-1]  # best on top
        for k in order if self.masks is not None else ():
            mask = self.masks[k]
            picture[mask] = picture[mask] // 2 + COLOURS[self.labels[k] % len(COLOURS)] // 2
        drawn = Image.fromarray(picture)
        pen = ImageDraw.Draw(drawn)
        size = max(10, min(drawn.size) // 40)
        font = ImageFont.load_default(size)
        if self.boxes is None:
            best = order[::-1][:5]
            lines = [f'{self._name(self.labels[k])} {self.scores[k]:.2f}' for k in best]
            pen.multiline_text(
                (4, 4), '\n'.join(lines), 'white', font, stroke_width=1, stroke_fill=0
            )
            return drawn
        for k in order:
            box, colour = (
                self.boxes[k].tolist(),
                tuple(COLOURS[self.labels[k] % len(COLOURS)].tolist()),
            )
            pen.rectangle(_sorted(box), outline=colour, width=max(1, size // 8))
            text = f'{self._name(self.labels[k])} {self.scores[k]:.2f}'
            at = box[0] + 1, max(box[1] - size - 2, 0)
            pen.rectangle(pen.textbbox(at, text, font), fill=colour)
            pen.text(at, text, 'white', font)
        return drawn

    def to_coco(self, image_id: int) -> list[dict[str, Any]]:
        """Annotations in COCO's format, with category ids from 1 on and without ``id``."""
        found = []
        for k in range(len(self)):
            entry: dict[str, Any] = dict(
                image_id=image_id,
                category_id=int(self.labels[k]) + 1,
                score=float(self.scores[k]),
            )
            if self.boxes is not None:
                left, top, right, bottom = map(float, self.boxes[k])
                entry['bbox'] = [left, top, right - left, bottom - top]
                entry['area'] = (right - left) * (bottom - top)
                entry['iscrowd'] = 0
            if self.masks is not None:
                entry['segmentation'] = encode_mask(self.masks[k])
                entry['area'] = int(self.masks[k].sum())
            found.append(entry)
        return found


def _sorted(box: list[float]) -> tuple[float, float, float, float]:
    """Corners as Pillow wants them, also of a box of a file that has them the other way round."""
    return min(box[0], box[2]), min(box[1], box[3]), max(box[0], box[2]), max(box[1], box[3])


def paste_masks(
    masks: np.ndarray, boxes: np.ndarray, height: int, width: int, threshold: float
) -> np.ndarray:
    """Put masks into their boxes as mmdet does: bilinear, zero outside.

    Args:
        masks: (N, h, w) probabilities, relative to the boxes.
        boxes: (N, 4) in pixels.
        height, width: size of the image.
        threshold: lowest probability of the object.

    Returns:
        (N, height, width) bool.

    Source: ``mmdet/models/roi_heads/mask_heads/fcn_mask_head.py``, ``_do_paste_mask``.
    """
    pasted = np.zeros((len(masks), height, width), bool)
    for out, mask, (left, top, right, bottom) in zip(pasted, masks, boxes, strict=True):
        columns, x_weights = _weights(left, right, mask.shape[1], width)
        rows, y_weights = _weights(top, bottom, mask.shape[0], height)
        out[rows, columns] = y_weights @ mask @ x_weights.T >= threshold
    return pasted


def _weights(low: float, high: float, cells: int, pixels: int) -> tuple[slice, np.ndarray]:
    """Pixels near an interval, and the bilinear weights (P, cells) of the cells in each of them."""
    first, last = np.clip((np.floor(low) - 1, np.ceil(high) + 1), 0, pixels).astype(int)
    with np.errstate(divide='ignore', invalid='ignore'):  # boxes without area
        at = (np.arange(first, last, dtype=np.float32) + 0.5 - low) / (high - low) * 2 - 1
    at = np.where(np.isinf(at), 0, at)  # as mmdet
    at = ((at + 1) * cells - 1) / 2
    weights = np.maximum(0, 1 - np.abs(at[:, None] - np.arange(cells, dtype=np.float32)))
    return slice(first, last), np.nan_to_num(weights)


def encode_mask(mask: np.ndarray) -> dict[str, Any]:
    """Encode a mask (H, W) as COCO's compressed run lengths."""
    flat = np.concatenate(([0], mask.T.ravel(), [0])).astype(np.int8)  # column by column
    edges = np.flatnonzero(np.diff(flat))
    runs = np.diff(np.concatenate(([0], edges, [mask.size]))).tolist()
    if len(runs) > 1 and runs[-1] == 0:
        runs.pop()  # the last pixel belongs to the object
    text = []
    for i, run in enumerate(runs):
        value = run - runs[i - 2] if i > 2 else run
        more = True
        while more:  # five bits a character, the sixth tells that more follow
            bits, value = value & 31, value >> 5
            more = value != (-1 if bits & 16 else 0)
            text.append(chr(48 + (bits | 32 if more else bits)))
    return dict(size=[int(n) for n in mask.shape], counts=''.join(text))
