"""How well the detections of an exported file agree with PyTorch's."""

from dataclasses import dataclass, field, fields

import numpy as np

#: Lower scores are not compared.
LOWEST_SCORE = 0.05


@dataclass(frozen=True)
class Tolerance:
    """How much a file may differ from PyTorch.

    Attributes:
        iou: a detection agrees if another of its label has this IoU or more with it ...
        score: ... and a score that differs by this at most.
        agreeing: share of the detections, and of the pixels of masks, that must agree.
        ap: largest difference of box and mask AP.
    """

    iou: float
    score: float
    agreeing: float
    ap: float


#: By precision. Detections of an 8-bit file are not comparable one by one, only its AP is.
TOLERANCES = dict(
    fp32=Tolerance(0.99, 1e-3, 0.999, 0.001),
    fp16=Tolerance(0.9, 0.02, 0.98, 0.005),
    int8=Tolerance(0.5, 0.25, 0.0, 0.01),
)


@dataclass
class Detections:
    """Detections of one image, best first.

    Attributes:
        boxes: (N, 4) left, top, right, bottom in pixels of the image.
        scores: (N,).
        labels: (N,).
        masks: (N, H, W) bool, or None.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    masks: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, index: np.ndarray) -> 'Detections':
        masks = None if self.masks is None else self.masks[index]
        return Detections(self.boxes[index], self.scores[index], self.labels[index], masks)


@dataclass
class Agreement:
    """Sums over images.

    Attributes:
        images: number of images.
        detections: PyTorch's and the file's detections above :data:`LOWEST_SCORE`.
        unmatched: those without a counterpart.
        box_error: largest error of a coordinate in pixels.
        score_error: largest error of a score.
        mask_pixels: number of mask pixels, of matched detections.
        mask_errors: number of those that differ.
        examples: descriptions of some detections without a counterpart.
    """

    images: int = 0
    detections: int = 0
    unmatched: int = 0
    box_error: float = 0.0
    score_error: float = 0.0
    mask_pixels: int = 0
    mask_errors: int = 0
    examples: list[str] = field(default_factory=list)

    def __add__(self, other: 'Agreement') -> 'Agreement':
        total = {}
        for name in (entry.name for entry in fields(self)):
            pair = getattr(self, name), getattr(other, name)
            total[name] = max(pair) if name.endswith('_error') else pair[0] + pair[1]
        return Agreement(**total)

    def within(self, tolerance: Tolerance) -> bool:
        """Return True if few enough detections and pixels of masks differ."""
        allowed = 1 - tolerance.agreeing
        return (
            self.unmatched <= allowed * self.detections
            and self.mask_errors <= allowed * self.mask_pixels
        )


def box_iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """IoU of boxes (N, 4) with others (M, 4): (N, M). Two equal boxes without area have IoU 1."""
    boxes, others = boxes[:, None].astype(np.float64), others[None].astype(np.float64)
    size = np.minimum(boxes[..., 2:], others[..., 2:]) - np.maximum(boxes[..., :2], others[..., :2])
    shared = size.clip(min=0).prod(-1)
    areas = [(b[..., 2:] - b[..., :2]).prod(-1) for b in (boxes, others)]
    union = areas[0] + areas[1] - shared
    same = np.abs(boxes - others).max(-1) < 1e-2
    return np.where(same, 1.0, shared / np.maximum(union, 1e-9))


def compare(
    expected: Detections,
    given: Detections,
    tolerance: Tolerance,
    most: int,
    lowest_score: float,
    name: str = '',
) -> Agreement:
    """Match the detections of one image, one to one.

    A detection may lack a counterpart if its score is within the tolerance of where the other list
    ends: at the model's score threshold, or at its last detection if the list is full.

    Args:
        expected: PyTorch's.
        given: the file's.
        tolerance: what counts as a counterpart.
        most: largest number of detections of an image.
        lowest_score: score threshold of the model.
        name: name of the image, for examples of detections without a counterpart.
    """
    result = Agreement(images=1)
    floors = []
    for found in (expected, given):
        last = found.scores[-1] if len(found) >= most else 0.0
        floors.append(max(lowest_score, LOWEST_SCORE, last) + tolerance.score)
    pairs = _pairs(expected, given, tolerance)
    for side, (found, floor) in enumerate(zip((expected, given), floors[::-1], strict=True)):
        counted = found.scores > LOWEST_SCORE
        result.detections += int(counted.sum())
        missing = counted & (found.scores > floor)
        missing[[pair[side] for pair in pairs]] = False
        result.unmatched += int(missing.sum())
        for k in missing.nonzero()[0][:3]:
            box = ', '.join(f'{value:.1f}' for value in found.boxes[k])
            result.examples.append(
                f'{name}: {"PyTorch" if side == 0 else "file"} alone finds label '
                f'{found.labels[k]}, score {found.scores[k]:.3f}, box {box}'
            )
    for i, k in pairs:
        box_error = np.abs(expected.boxes[i] - given.boxes[k]).max()
        result.box_error = max(result.box_error, float(box_error))
        score_error = abs(expected.scores[i] - given.scores[k])
        result.score_error = max(result.score_error, float(score_error))
        if expected.masks is not None and given.masks is not None:
            ours, theirs = given.masks[k], expected.masks[i]
            result.mask_pixels += int((ours | theirs).sum())
            result.mask_errors += int((ours != theirs).sum())
    return result


def _pairs(expected: Detections, given: Detections, tolerance: Tolerance) -> list[tuple[int, int]]:
    """Indices of detections that agree, one to one; each takes its best counterpart."""
    iou = box_iou(expected.boxes, given.boxes)
    score_errors = np.abs(expected.scores[:, None] - given.scores[None])
    agree = (
        (expected.labels[:, None] == given.labels[None])
        & (iou >= tolerance.iou)
        & (score_errors <= tolerance.score)
    )
    free = np.ones(len(given), bool)
    pairs = []
    for i in (expected.scores > LOWEST_SCORE).nonzero()[0]:
        possible = agree[i] & free
        if possible.any():
            k = int(np.where(possible, score_errors[i] - iou[i], np.inf).argmin())
            free[k] = False
            pairs.append((int(i), k))
    return pairs
