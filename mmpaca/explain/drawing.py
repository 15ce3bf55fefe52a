"""Draw predictions: boxes, masks, labels and class scores that are readable at any image size."""

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw

from .pictures import PALETTE, font
from .scene import Detection

Colour = tuple[int, int, int]  # RGB
Box = tuple[int, int, int, int]  # left, top, right, bottom

MIN_SIDE = 480  # smaller images are enlarged, pixels of the longer side
_MASK_OPACITY = 0.45
_REGION_OPACITY = 0.6


def enlarge(image: np.ndarray) -> tuple[np.ndarray, int]:
    """Scale a small image up by a whole number to a longer side of at least :data:`MIN_SIDE`.

    Args:
        image: (height, width, 3) uint8.

    Returns:
        The image, unchanged where it is large enough, and the scale.
    """
    scale = -(-MIN_SIDE // max(image.shape[:2]))
    return _resize(image, scale, cv2.INTER_CUBIC), scale


def draw_detections(
    image: np.ndarray,
    detections: Sequence[Detection],
    palette: Sequence[Sequence[int]] | None = None,
) -> np.ndarray:
    """Draw boxes, masks, class names and scores; one colour per class.

    Small images are enlarged (see :func:`enlarge`), so that labels neither cover the objects nor
    are cut off.

    Args:
        image: (height, width, 3) uint8 RGB.
        detections: see :class:`Detection`.
        palette: RGB of each class; by default Okabe and Ito's seven colours in turn.

    Returns:
        (k * height, k * width, 3) uint8 RGB with an integer k.
    """
    out, scale = enlarge(np.ascontiguousarray(image))
    out = out.copy()
    side = max(out.shape[:2])
    line = max(2, round(side / 450))
    palette = palette or PALETTE.tolist()
    colours: list[Colour] = [tuple(palette[d.label % len(palette)]) for d in detections]
    # Large ones first: what lies inside them stays visible.
    order = sorted(range(len(detections)), key=lambda i: -_area(detections[i].box))
    for i in order:
        if detections[i].has_mask:
            _paint_mask(out, detections[i].mask, scale, colours[i], line)
    for i in order:
        left, top, right, bottom = (round(v * scale) for v in detections[i].box)
        cv2.rectangle(out, (left, top), (right, bottom), (0, 0, 0), line + 2)
        cv2.rectangle(out, (left, top), (right, bottom), colours[i], line)
    return _draw_labels(out, detections, colours, scale, max(12, round(side / 55)))


def draw_classes(image: np.ndarray, scores: Sequence[tuple[str, float]]) -> np.ndarray:
    """Put a classifier's best classes below the image, with bars for their scores.

    Args:
        image: (height, width, 3) uint8 RGB.
        scores: name and score in 0..1 of the classes to list, the best first.

    Returns:
        (k * height + band, k * width, 3) uint8 RGB with an integer k.
    """
    out, _ = enlarge(np.ascontiguousarray(image))
    height, width = out.shape[:2]
    size = max(11, round(max(height, width) / 40))
    row, margin = round(size * 1.6), size // 2
    canvas = Image.new('RGB', (width, height + len(scores) * row + 2 * margin), 'white')
    canvas.paste(Image.fromarray(out))
    draw = ImageDraw.Draw(canvas)
    for i, (name, score) in enumerate(scores):
        top = height + margin + i * row
        bar = round((width - 2 * margin) * min(max(score, 0.0), 1.0))
        colour = tuple(PALETTE[1].tolist()) if i == 0 else (205, 220, 230)
        draw.rectangle((margin, top, margin + bar, top + row - 3), fill=colour)
        middle = top + (row - 3) / 2
        draw.text((margin + 4, middle), f'{score:.2f}  {name}', 'black', font(size), anchor='lm')
    return np.asarray(canvas)


def draw_regions(
    image: np.ndarray,
    labels: np.ndarray,
    names: Mapping[int, str],
    palette: Sequence[Sequence[int]] | None = None,
) -> np.ndarray:
    """Tint each pixel with the colour of its class, and list the classes below the image.

    Args:
        image: (height, width, 3) uint8 RGB.
        labels: class of each pixel, (height, width).
        names: name of each class that occurs.
        palette: RGB of each class; by default Okabe and Ito's seven colours in turn.

    Returns:
        (k * height + band, k * width, 3) uint8 RGB with an integer k.
    """
    out, scale = enlarge(np.ascontiguousarray(image))
    colours = np.asarray(palette or PALETTE, np.uint8)
    large = labels.repeat(scale, 0).repeat(scale, 1)
    tint = colours[large % len(colours)]
    out = cv2.addWeighted(out, 1 - _REGION_OPACITY, tint, _REGION_OPACITY, 0)
    height, width = out.shape[:2]
    size = max(11, round(max(height, width) / 45))
    row, margin = round(size * 1.6), size // 2
    places, left, top = [], margin, height + margin
    for label, name in names.items():
        extent = round(font(size).getlength(name)) + 3 * size
        if left > margin and left + extent > width:
            left, top = margin, top + row
        places.append((left, top, label, name))
        left += extent
    canvas = Image.new('RGB', (width, top + row + margin), 'white')
    canvas.paste(Image.fromarray(out))
    draw = ImageDraw.Draw(canvas)
    for left, top, label, name in places:
        colour = tuple(colours[label % len(colours)].tolist())
        draw.rectangle((left, top, left + size, top + size), fill=colour, outline='black')
        draw.text((left + 1.4 * size, top + size / 2), name, 'black', font(size), anchor='lm')
    return np.asarray(canvas)


def _paint_mask(out: np.ndarray, mask: np.ndarray, scale: int, colour: Colour, line: int) -> None:
    """Tint a region and draw its outline, in place."""
    rows, columns = mask.any(1).nonzero()[0], mask.any(0).nonzero()[0]
    if not len(rows):
        return
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    part = np.pad(mask[top:bottom, left:right].astype(np.uint8) * 255, 1)
    large = _resize(part, scale, cv2.INTER_LINEAR)[scale:-scale, scale:-scale] > 127
    region = out[top * scale : bottom * scale, left * scale : right * scale]
    flat = np.full_like(region, colour)
    tinted = cv2.addWeighted(region, 1 - _MASK_OPACITY, flat, _MASK_OPACITY, 0)
    np.copyto(region, tinted, where=large[..., None])
    contours, _ = cv2.findContours(
        large.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE,
        offset=(int(left * scale), int(top * scale)),
    )  # fmt: skip
    cv2.drawContours(out, contours, -1, colour, line, cv2.LINE_AA)


def _draw_labels(
    out: np.ndarray,
    detections: Sequence[Detection],
    colours: Sequence[Colour],
    scale: int,
    size: int,
) -> np.ndarray:
    """Write names and scores beside their boxes, the surest first."""
    canvas = Image.fromarray(out)
    draw = ImageDraw.Draw(canvas)
    pad = max(2, size // 5)
    placed: list[Box] = []
    for detection, colour in sorted(
        zip(detections, colours, strict=True), key=lambda pair: -pair[0].score
    ):
        text = f'{detection.name} {detection.score:.2f}'
        ascent, descent = font(size).getmetrics()
        extent = round(font(size).getlength(text)) + 2 * pad, ascent + descent + pad
        box = tuple(round(v * scale) for v in detection.box)
        place = _place(extent, box, (out.shape[1], out.shape[0]), placed)
        placed.append(place)
        draw.rectangle(place, fill=colour)
        # The ITU's weights for brightness (BT.601).
        bright = np.dot(colour, (0.299, 0.587, 0.114)) > 140
        draw.text((place[0] + pad, place[1] + pad // 2), text, 'black' if bright else 'white', font(size))  # fmt: skip
    return np.asarray(canvas)


def _place(
    extent: tuple[int, int], box: Sequence[int], bounds: tuple[int, int], placed: Sequence[Box]
) -> Box:
    """Find the label's place: above the box, below or inside, where it covers other labels least."""
    (width, height), (left, top, right, bottom) = extent, box
    corners = [
        (left, top - height),
        (right - width, top - height),
        (left, bottom),
        (left, top),
        (right - width, bottom - height),
    ]
    places = []
    for x, y in corners:
        # Into the picture, at the expense of the distance to the box.
        x = max(0, min(x, bounds[0] - width - 1))
        y = max(0, min(y, bounds[1] - height - 1))
        places.append((x, y, x + width, y + height))
    return min(places, key=lambda place: _overlap(place, placed))


def _overlap(place: Box, others: Sequence[Box]) -> float:
    """Sum the areas of a box that others cover."""
    if not others:
        return 0
    boxes = np.array(others)
    sides = np.minimum(place[2:], boxes[:, 2:]) - np.maximum(place[:2], boxes[:, :2])
    return float(sides.clip(0).prod(1).sum())


def _area(box: Sequence[float]) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _resize(image: np.ndarray, scale: int, how: int) -> np.ndarray:
    return image if scale == 1 else cv2.resize(image, None, fx=scale, fy=scale, interpolation=how)
