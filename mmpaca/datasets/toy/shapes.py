"""Toy instance-segmentation dataset in COCO format: coloured shapes on a textured background.

A model learns it on a CPU in minutes. Shapes are rotated, scaled, overlapping, occluded and
truncated by the border. Masks are the exact visible polygons.
"""

import json
import math
from pathlib import Path

import cv2
import mmcv
import numpy as np
from shapely.geometry import MultiPolygon, Polygon, box
from shapely.geometry.base import BaseGeometry

CLASSES = ('circle', 'square', 'triangle', 'star')
_SUPERSAMPLING = 4  # drawn this much larger and averaged down, so that edges are smooth


def write_shapes(
    out_dir: str | Path,
    num_train: int = 800,
    num_val: int = 200,
    image_size: int = 96,
    seed: int = 0,
) -> Path:
    """Write ``train/``, ``val/`` (PNG) and ``annotations/{train,val}.json`` below ``out_dir``.

    Args:
        out_dir: output folder, created if needed.
        num_train: number of training images.
        num_val: number of validation images.
        image_size: side of the square images in pixels, at least 32.
        seed: random seed; equal arguments give equal bytes.

    Returns:
        ``out_dir``.

    Raises:
        OSError: a file cannot be written.
        ValueError: a size or number is too small.
    """
    if image_size < 32 or num_train < 1 or num_val < 1:
        raise ValueError(
            f'image_size={image_size} must be >= 32, num_train={num_train} and num_val={num_val} >= 1'
        )
    out_dir = Path(out_dir)
    for split, (name, count) in enumerate((('train', num_train), ('val', num_val))):
        (out_dir / name).mkdir(parents=True, exist_ok=True)
        images: list[dict] = []
        annotations: list[dict] = []
        for image_id in range(1, count + 1):
            # One generator per image: the first images do not depend on their number.
            rng = np.random.default_rng((seed, split, image_id))
            picture, shapes = _scene(rng, image_size)
            file_name = f'{image_id:06d}.png'
            mmcv.imwrite(picture, out_dir / name / file_name)  # raises, unlike cv2.imwrite
            images.append(
                dict(id=image_id, file_name=file_name, width=image_size, height=image_size)
            )
            for category, region in shapes:
                annotations.append(
                    dict(
                        id=len(annotations) + 1,
                        image_id=image_id,
                        category_id=category + 1,
                        iscrowd=0,
                        **_coco_region(region),
                    )
                )
        content = dict(
            info=dict(description='mmpaca shapes', seed=seed, image_size=image_size),
            images=images,
            annotations=annotations,
            categories=[dict(id=i + 1, name=name) for i, name in enumerate(CLASSES)],
        )
        # Written last: where annotations exist, their images do.
        (out_dir / 'annotations').mkdir(exist_ok=True)
        (out_dir / 'annotations' / f'{name}.json').write_text(json.dumps(content))
    return out_dir


def _scene(
    rng: np.random.Generator, size: int
) -> tuple[np.ndarray, list[tuple[int, BaseGeometry]]]:
    """One picture, (size, size, 3) uint8, and its visible shapes as (class index, region)."""
    frame = box(0, 0, size, size)
    ground = rng.uniform(40, 215, 3)
    canvas = _texture(rng, size, ground, contrast=40)
    visible: list[tuple[int, BaseGeometry, float]] = []  # class, region, area with nothing hidden
    wanted = rng.integers(2, 6)
    for _ in range(50):  # attempts; a crowded picture may end with fewer shapes than wanted
        category = int(rng.integers(len(CLASSES)))
        outline = _outline(rng, CLASSES[category], size)
        shape = Polygon(outline)
        left = [(c, region.difference(shape), area) for c, region, area in visible]
        left.append((category, shape.intersection(frame), shape.area))
        if not all(_is_recognisable(region, area) for _, region, area in left):
            continue
        visible = left
        colour = rng.uniform(20, 235, 3)
        while np.abs(colour - ground).max() < 60:
            colour = rng.uniform(20, 235, 3)
        _paint(rng, canvas, outline, colour)
        if len(visible) == wanted:
            break
    shapes = [(category, region) for category, region, _ in visible]
    return np.round(canvas).astype(np.uint8), shapes


def _is_recognisable(region: BaseGeometry, area: float) -> bool:
    """True if most of it is visible and COCO's polygons, which have no holes, can describe it."""
    parts = region.geoms if isinstance(region, MultiPolygon) else [region]
    return region.area > 0.6 * area and all(
        isinstance(part, Polygon) and not part.interiors for part in parts
    )


def _outline(rng: np.random.Generator, name: str, size: int) -> np.ndarray:
    """Corner points of a shape, (K, 2) x and y in pixels."""
    corners, first = {  # how many, and where the first one points
        'circle': (48, 0.0),
        'square': (4, math.pi / 4),
        'triangle': (3, -math.pi / 2),
        'star': (10, -math.pi / 2),
    }[name]
    tilt = rng.uniform(-math.pi / 9, math.pi / 9)
    angle = np.arange(corners) * 2 * math.pi / corners + first + tilt
    radius = np.full(corners, size * rng.uniform(0.13, 0.27))
    if name == 'star':
        radius[1::2] *= 0.5
    centre = rng.uniform(0.05 * size, 0.95 * size, 2)
    return centre + radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def _paint(
    rng: np.random.Generator, canvas: np.ndarray, outline: np.ndarray, colour: np.ndarray
) -> None:
    """Fill an outline with a textured colour; ``canvas`` is (size, size, 3) float."""
    size = len(canvas)
    mask = np.zeros((size * _SUPERSAMPLING,) * 2, np.uint8)
    # Pixel centres lie at half coordinates, hence the half pixel of the larger mask.
    points = np.round((outline * _SUPERSAMPLING - 0.5) * 16).astype(np.int32)
    cv2.fillPoly(mask, [points], 255, shift=4)
    cover = cv2.resize(mask, (size, size), interpolation=cv2.INTER_AREA)[..., None] / 255
    canvas += cover * (_texture(rng, size, colour, contrast=20) - canvas)


def _texture(
    rng: np.random.Generator, size: int, colour: np.ndarray, contrast: float
) -> np.ndarray:
    """A colour with smooth and fine variation, (size, size, 3) float in 0..255."""
    smooth = cv2.resize(
        rng.normal(0, contrast / 2, (4, 4, 3)), (size, size), interpolation=cv2.INTER_CUBIC
    )
    fine = rng.normal(0, contrast / 6, (size, size, 1))
    return np.clip(colour + smooth + fine, 0, 255)


def _coco_region(region: BaseGeometry) -> dict:
    """COCO's ``segmentation``, ``bbox`` (x, y, width, height) and ``area`` of a region."""
    parts = region.geoms if isinstance(region, MultiPolygon) else [region]
    left, top, right, bottom = region.bounds
    return dict(
        segmentation=[
            [round(float(v), 2) for xy in part.exterior.coords[:-1] for v in xy] for part in parts
        ],
        bbox=[round(float(v), 2) for v in (left, top, right - left, bottom - top)],
        area=round(float(region.area), 2),
    )
