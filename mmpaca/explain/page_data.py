"""Data of the page: maps, detections and the image as JSON, small enough to be mailed.

Maps are reduced to ``map_cells`` a side, stored as bytes and deflated.
"""

import base64
import zlib
from collections.abc import Sequence

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .recorder import BlockRecord
from .scene import Detection, Scene

_MAX_SIDE = 1920  # pixels of the embedded image
_LOSSLESS = 400_000  # bytes up to which the image is stored without loss
_DECIDED_CELLS = 96  # longer side of the maps of detections, which are one byte a cell each
_THUMBNAIL = 240  # pixels of the longer side


def scene_data(name: str, scene: Scene, map_cells: int, model: str = '') -> dict:
    """Build the page's data of an image; coordinates are pixels of the embedded image.

    Args:
        name: name of the image.
        scene: the image with its clusters and detections.
        map_cells: maximum number of cells on a map's longer side; larger maps are reduced.
        model: name of the weights, where several are compared.

    Returns:
        Numbers and strings for JSON, read by ``web/data.js``.
    """
    shrink = min(1.0, _MAX_SIDE / max(scene.image.shape[:2]))
    image = cv2.resize(scene.image, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
    return dict(
        name=name,
        model=model,
        width=image.shape[1],
        height=image.shape[0],
        image=encode_image(image, 90, _LOSSLESS),
        leftOut=[stage + 1 for stage in scene.left_out],
        segmented=scene.is_segmented,
        blocks=[_block_data(scene, block, map_cells, shrink) for block in scene.blocks],
        decided=_decided(scene),
        detections=[_detection_data(detection, shrink) for detection in scene.detections],
    )


def thumbnail(image: np.ndarray) -> str:
    """Return a small copy of an image, (height, width, 3) uint8 RGB, as a data URI."""
    shrink = min(1.0, _THUMBNAIL / max(image.shape[:2]))
    small = cv2.resize(image, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
    return encode_image(small, 80)


def encode_image(image: np.ndarray, quality: int, lossless: int = 0) -> str:
    """Encode an image as a data URI.

    Args:
        image: (height, width, 3) uint8 RGB.
        quality: JPEG quality.
        lossless: PNG is taken instead of JPEG where it has at most this number of bytes.
    """
    bgr = np.ascontiguousarray(image[..., ::-1])
    if lossless and image.size <= 4 * lossless:
        png = cv2.imencode('.png', bgr)[1]
        if len(png) <= lossless:
            return 'data:image/png;base64,' + _base64(png)
    jpeg = cv2.imencode('.jpg', bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return 'data:image/jpeg;base64,' + _base64(jpeg)


def followed(scene: Scene, block: BlockRecord) -> list[tuple[str, float] | None]:
    """Name the category of detections that each cluster of a block follows.

    A cluster follows a category if at least 30 % of it lies in the category's detections, at odds
    three times those of a cluster that is spread evenly over the image.

    Args:
        scene: the image with its detections.
        block: one of its blocks.

    Returns:
        For each cluster name and share of the category with the largest share, or None.
    """
    names = sorted({detection.name for detection in scene.detections})
    clusters = block.assignment.shape[1]
    if block.is_head or not names:
        return [None] * clusters
    regions = torch.stack(
        [
            torch.from_numpy(
                np.max([scene.coverage(block, d) for d in scene.detections if d.name == name], 0)
            )
            for name in names
        ]
    )  # (C, H, W)
    shares = torch.einsum('mhw,chw->mc', block.assignment[0], regions)
    rows, columns = block.assignment.shape[-2:]
    everywhere = np.ones(scene.image.shape[:2], bool)
    patches = scene.geometry.to_map(everywhere, block.stride, (rows, columns))
    even = regions.sum((1, 2)) / float(np.isfinite(patches).sum())
    odds, even_odds = shares / (1 - shares).clamp_min(1e-6), even / (1 - even).clamp_min(1e-6)
    follows = (shares >= 0.3) & (odds >= 3 * even_odds)
    best, which = torch.where(follows, shares, 0).max(1)
    return [
        (names[c], round(share, 3)) if share else None
        for share, c in zip(best.tolist(), which.tolist(), strict=True)
    ]


def pool(maps: Tensor | np.ndarray, factor: int) -> Tensor:
    """Sum maps over cells of factor x factor patches; the last ones may be smaller.

    Args:
        maps: (..., H, W).
        factor: side of a cell in patches.

    Returns:
        (..., h, w): H and W divided by ``factor``, rounded up.
    """
    maps = torch.as_tensor(maps)
    height, width = maps.shape[-2:]
    maps = F.pad(maps, (0, -width % factor, 0, -height % factor))
    # (..., H, W) -> (..., h, factor, w, factor)
    cells = maps.unflatten(-1, (-1, factor)).unflatten(-3, (-1, factor))
    return cells.sum((-3, -1))


def _block_data(scene: Scene, block: BlockRecord, map_cells: int, shrink: float) -> dict:
    factor = -(-max(block.assignment.shape[-2:]) // map_cells)
    # (M, H, W) -> (M, h, w): the sum over a cell's patches.
    assignment = pool(block.assignment[0], factor)
    # (heads, H, W, M) -> (heads, M, H, W) -> (heads, M, h, w): the mean over a cell's patches.
    attention = pool(block.recorded_attention()[0].permute(0, 3, 1, 2), factor)
    attention = attention / attention.sum(1, keepdim=True)
    rows, columns = assignment.shape[-2:]
    received = block.received()[0]
    covered = [pool(scene.coverage(block, detection), factor) for detection in scene.detections]
    return dict(
        stage=block.stage + 1,
        block=block.block + 1,
        isHead=block.is_head,
        names=scene.cluster_names(block),
        follows=followed(scene, block),
        predicted=_predicted(covered) if scene.is_segmented else [],
        heads=attention.shape[0],
        clusters=assignment.shape[0],
        rows=rows,
        columns=columns,
        cell=[v * shrink for v in scene.geometry.cell_box(block.stride * factor)],
        order=received.argsort(descending=True).tolist(),
        received=[round(v, 4) for v in received.tolist()],
        assignment=_quantise(assignment.flatten(1)),  # (M, n)
        # (heads, M, h, w) -> (heads, M, n) -> (heads, n, M)
        attention=_quantise(attention.flatten(2).transpose(1, 2)),
        coverage=_quantise(torch.stack(covered).flatten(1)) if covered else '',  # (D, n)
        labels=_deflate(assignment.argmax(0).numpy().astype('<u2')),
    )


def _predicted(covered: Sequence[Tensor]) -> list[int]:
    """Position among the regions of the one that covers most of each cell, -1 for none."""
    if not covered:
        return []
    most, which = torch.stack(list(covered)).max(0)
    return torch.where(most > 0, which, -1).flatten().tolist()


def _decided(scene: Scene) -> dict | None:
    """Reduce the maps of what decided detections; None if they were not computed."""
    if scene.attribution is None or not len(scene.attribution):
        return None
    height, width = scene.attribution.shape[1:]
    shrink = min(1.0, _DECIDED_CELLS / max(height, width))
    size = max(1, round(width * shrink)), max(1, round(height * shrink))
    maps = np.stack(
        [
            cv2.resize(np.clip(one, 0, None), size, interpolation=cv2.INTER_AREA)
            for one in scene.attribution
        ]
    )
    packed = _quantise(torch.from_numpy(maps).flatten(1))
    return dict(count=len(maps), rows=size[1], columns=size[0], maps=packed)


def _detection_data(detection: Detection, shrink: float) -> dict:
    return dict(
        name=detection.name,
        label=detection.label,
        score=round(detection.score, 3),
        box=[round(v * shrink, 1) for v in detection.box],
        outline=_outline(detection.mask, shrink) if detection.has_mask else [],
        curves=detection.curves,
    )


def _quantise(rows: Tensor) -> str:
    """Encode distributions as bytes, 255 * sqrt(value / maximum of the row).

    The square root keeps small values apart (the smallest is 1.5e-5 of the largest). The page
    squares the bytes and divides each row by its sum.
    """
    rows = rows / rows.amax(-1, keepdim=True).clamp_min(1e-30)
    return _deflate((255 * rows.sqrt()).round().to(torch.uint8).numpy())


def _deflate(array: np.ndarray) -> str:
    return _base64(np.frombuffer(zlib.compress(array.tobytes(), 9), np.uint8))


def _base64(array: np.ndarray) -> str:
    return base64.b64encode(array.tobytes()).decode()


def _outline(mask: np.ndarray, shrink: float) -> list[list[float]]:
    """Return a region's smooth outlines, holes included, as flat lists of x and y.

    The border of a mask follows the pixels; it is blurred and drawn anew between them.
    """
    rows, columns = mask.any(1).nonzero()[0], mask.any(0).nonzero()[0]
    if not len(rows):
        return []
    top, left, bottom, right = rows[0], columns[0], rows[-1] + 1, columns[-1] + 1
    times = int(np.clip(640 // max(bottom - top, right - left), 1, 8))
    # Padded, because the outline of a region at the image's border is closed there.
    part = np.pad(mask[top:bottom, left:right], 2).astype(np.float32)
    blurred = cv2.GaussianBlur(part, (0, 0), 0.8)
    large = cv2.resize(blurred, None, fx=times, fy=times, interpolation=cv2.INTER_CUBIC)
    contours, _ = cv2.findContours(
        (large > 0.5).astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE
    )
    outlines = []
    for contour in contours:
        points = cv2.approxPolyDP(contour, 0.6, True)[:, 0]
        if len(points) > 2:
            # + 0.5: the centre of a pixel.
            points = ((points + 0.5) / times + (left - 2, top - 2)) * shrink
            outlines.append([round(float(v), 1) for v in points.flat])
    return outlines
