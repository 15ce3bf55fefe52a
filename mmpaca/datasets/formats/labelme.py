"""labelme: one JSON file per image, with polygons, rectangles, circles or masks."""

import base64
import io
import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .labels import (
    ImageIndex,
    LabelledImage,
    LabelledObject,
    Labels,
    box_of,
    check_missing,
    image_size,
    split_of,
)
from .rle import encode, paste

_CORNERS = 32  # of the polygon in place of a circle


def is_labelme(content: Any) -> bool:
    """Return True for the content of a labelme file."""
    return isinstance(content, dict) and isinstance(content.get('shapes'), list)


def read_labelme(root: Path, files: list[Path]) -> Labels:
    """Read labelme's files.

    Polygons, rectangles, circles and masks are read; points and lines are left out. Shapes of one
    ``group_id`` and label are one object. Folder names split the images.

    Args:
        root: folder of images and labels.
        files: the JSON files.

    Raises:
        ValueError: names the file and the invalid shape; or too many images are missing.
    """
    index = ImageIndex(root)
    images, missing = [], []
    skipped: Counter[str] = Counter()
    for file in files:
        content = json.loads(file.read_text())
        name = str(content.get('imagePath') or file.stem)
        path = index.find(file.stem, file) or index.find(name, file)
        if path is None:
            missing.append(name)
            continue
        size = (content.get('imageHeight'), content.get('imageWidth'))
        if not all(isinstance(side, int) and side > 0 for side in size):
            size = image_size(path)
        try:
            objects = _read_shapes(content['shapes'], size, skipped)
        except (KeyError, TypeError, ValueError, OSError) as error:
            raise ValueError(
                f'{file}: a shape is invalid ({error!r}): correct it in labelme'
            ) from None
        images.append(LabelledImage(path, size, objects, split_of(file.relative_to(root).parent)))
    notes = check_missing(missing, len(files), root)
    notes += [f'{n} shapes of type {kind} are left out' for kind, n in sorted(skipped.items())]
    without = len(index.paths) - len({image.path for image in images})
    if without:
        notes.append(f'{without} images have no JSON file; they are left out')
    classes = sorted({one.name for image in images for one in image.objects})
    return Labels('labelme', classes, images, notes)


def _read_shapes(
    shapes: list[dict], size: tuple[int, int], skipped: Counter[str]
) -> list[LabelledObject]:
    objects: list[LabelledObject] = []
    groups: dict[tuple, LabelledObject] = {}
    for shape in shapes:
        kind = shape.get('shape_type') or 'polygon'
        one = _read_shape(shape, kind, size)
        if one is None:
            skipped[kind] += 1
            continue
        key = (one.name, shape.get('group_id'))
        if key[1] is not None and isinstance(one.segmentation, list) and key in groups:
            _add_part(groups[key], one)
            continue
        if isinstance(one.segmentation, list):
            groups[key] = one
        objects.append(one)
    return objects


def _read_shape(shape: dict, kind: str, size: tuple[int, int]) -> LabelledObject | None:
    name = str(shape['label'])
    points = [float(value) for point in shape['points'] for value in point]
    if kind == 'polygon':
        return LabelledObject(name, box_of(points), [points])
    if kind == 'rectangle':
        return LabelledObject(name, box_of(points))
    if kind == 'circle':  # its centre and a point on it
        x, y, x2, y2 = points
        radius = math.hypot(x2 - x, y2 - y)
        angles = [2 * math.pi * i / _CORNERS for i in range(_CORNERS)]
        points = [c for a in angles for c in (x + radius * math.cos(a), y + radius * math.sin(a))]
        return LabelledObject(name, box_of(points), [points])
    if kind == 'mask':  # a PNG of the box between two points
        with Image.open(io.BytesIO(base64.b64decode(shape['mask']))) as image:
            mask = np.asarray(image) > 0
        left, top, *_ = map(round, points)
        return encode(name, paste(mask, left, top, size))
    return None


def _add_part(whole: LabelledObject, part: LabelledObject) -> None:
    assert isinstance(whole.segmentation, list) and isinstance(part.segmentation, list)
    whole.segmentation += part.segmentation
    whole.bbox = box_of([value for points in whole.segmentation for value in points])
