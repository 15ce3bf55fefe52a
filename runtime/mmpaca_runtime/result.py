"""What a model found in an image."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

# Far apart in hue; the ninth class has the first again.
COLOURS = np.array(
    [[230, 25, 75], [60, 180, 75], [0, 130, 200], [245, 130, 48]]
    + [[145, 30, 180], [70, 240, 240], [240, 50, 230], [128, 128, 0]],
    np.uint8,
)


@dataclass
class Result:
    """Detections or classes of an image, best first; of a segmentor the classes in it, largest first.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        boxes: (N, 4) left, top, right, bottom in pixels; None for a classifier or segmentor.
        scores: (N,); of a segmentor the share of pixels of each class.
        labels: (N,) indices of ``classes``.
        masks: (N, H, W) bool, or None.
        classes: class names of the model.
        label_map: (H, W), of a segmentor the label of each pixel, else None.
    """

    image: np.ndarray
    boxes: np.ndarray | None
    scores: np.ndarray
    labels: np.ndarray
    masks: np.ndarray | None
    classes: list[str]
    label_map: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def names(self) -> list[str]:
        """Class name of each detection."""
        return [self._name(label) for label in self.labels]

    def _name(self, label: int) -> str:
        return self.classes[label] if label < len(self.classes) else f'class {label}'

    def draw(self, score_thr: float = 0.0) -> Image.Image:
        """Draw boxes, masks, names and scores; of a classifier the best five, of a segmentor all."""
        picture = self.image.copy()
        shown = np.flatnonzero((self.scores >= score_thr) | (self.label_map is not None))
        texts = {k: f'{self._name(self.labels[k])} {self.scores[k]:.2f}' for k in shown}
        colours = COLOURS[self.labels % len(COLOURS)]
        if self.masks is not None:
            for k in shown[::-1]:  # the best on top
                picture[self.masks[k]] = picture[self.masks[k]] // 2 + colours[k] // 2
        drawn = Image.fromarray(picture)
        pen = ImageDraw.Draw(drawn)
        size = max(10, min(drawn.size) // 40)
        font = ImageFont.load_default(size)
        if self.boxes is None:
            shown = shown[:5] if self.label_map is None else shown
            for line, k in enumerate(shown):
                at, colour = (4, 4 + line * (size + 4)), tuple(colours[k].tolist())
                pen.text(at, texts[k], colour, font, stroke_width=1, stroke_fill='black')
            return drawn
        for k in shown[::-1]:
            left, top, right, bottom = self.boxes[k].tolist()
            colour = tuple(colours[k].tolist())
            corners = (left, top, max(left, right), max(top, bottom))
            pen.rectangle(corners, outline=colour, width=max(1, size // 8))
            at = left + 1, max(top - size - 2, 0)
            pen.rectangle(pen.textbbox(at, texts[k], font), fill=colour)
            pen.text(at, texts[k], 'white', font)
        return drawn

    def to_coco(self, image_id: int) -> list[dict[str, Any]]:
        """Annotations in COCO's format, with category ids from 1 on and without ``id``."""
        found = []
        for k, (score, label) in enumerate(zip(self.scores, self.labels, strict=True)):
            entry: dict[str, Any] = dict(image_id=image_id, category_id=int(label) + 1)
            entry['score'] = float(score)
            if self.boxes is not None:
                left, top, right, bottom = map(float, self.boxes[k])
                width, height = right - left, bottom - top
                entry |= dict(bbox=[left, top, width, height], area=width * height, iscrowd=0)
            if self.masks is not None:
                entry['segmentation'] = encode_mask(self.masks[k])
                entry['area'] = int(self.masks[k].sum())
            found.append(entry)
        return found


def from_label_map(image: np.ndarray, label_map: np.ndarray, classes: list[str]) -> Result:
    """The classes of a label map (H, W), with their shares of the pixels."""
    labels, counts = np.unique(label_map, return_counts=True)
    order = np.argsort(-counts, kind='stable')
    labels, shares = labels[order].astype(np.int64), counts[order] / label_map.size
    masks = label_map == labels[:, None, None]
    return Result(image, None, shares, labels, masks, classes, label_map)


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
    columns, x_weights = _weights(boxes[:, 0], boxes[:, 2], masks.shape[2], width)
    rows, y_weights = _weights(boxes[:, 1], boxes[:, 3], masks.shape[1], height)
    for k, ((x0, x1), (y0, y1)) in enumerate(zip(columns.tolist(), rows.tolist(), strict=True)):
        full = y_weights[k, : y1 - y0] @ masks[k] @ x_weights[k, : x1 - x0].T
        np.greater_equal(full, threshold, out=pasted[k, y0:y1, x0:x1])
    return pasted


def _weights(
    low: np.ndarray, high: np.ndarray, cells: int, pixels: int
) -> tuple[np.ndarray, np.ndarray]:
    """Interpolation along one axis.

    Args:
        low, high: (N,) intervals.
        cells: number of values in each.
        pixels: size of the image.

    Returns:
        First and last + 1 of the pixels near each interval, (N, 2), and the bilinear weights of the
        cells in these pixels, (N, L, cells) for the longest interval.
    """
    near = np.stack((np.floor(low) - 1, np.ceil(high) + 1), 1).clip(0, pixels).astype(int)
    longest = (near[:, 1] - near[:, 0]).max(initial=0)
    pixel = (near[:, :1] + np.arange(longest)).astype(np.float32) + 0.5
    low, high = low[:, None], high[:, None]
    with np.errstate(divide='ignore', invalid='ignore'):  # boxes without area
        at = (pixel - low) / (high - low) * 2 - 1
    at = np.where(np.isinf(at), 0, at)  # as mmdet
    at = np.nan_to_num(((at + 1) * cells - 1) / 2, nan=-1).clip(-1, cells)[..., None]
    taps = np.floor(at).astype(int) + np.arange(2)
    weights = np.zeros((*at.shape[:2], cells + 3), np.float32)  # from cell -1 on
    np.put_along_axis(weights, taps + 1, 1 - np.abs(at - taps.astype(np.float32)), 2)
    return near, weights[..., 1:-2]


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
