"""Interactive page: one self-contained HTML file that shows the clusters of a patch on hover.

The data of each image is a separate JSON script, parsed when the image is selected. Maps are reduced
to ``map_cells`` a side and stored as bytes: at 48 cells an 800 x 1344 input takes about 3 MB with
the last block of three stages and 100 clusters.
"""

import base64
import html
import json
import os
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .pictures import PALETTE
from .recorder import BlockRecord
from .scene import Scene

_TEMPLATE = Path(__file__).with_name('page.html')
_PLACE = '<!-- SCENES -->'
_MAX_SIDE = 1280  # pixels of the embedded image


class Page:
    """Writer of the page; images are added one by one, so that memory does not grow.

    The page appears when it is complete; after an error an older one stays as it is.

    Args:
        path: the HTML file.
        map_cells: maximum number of cells on a map's longer side; larger maps are reduced.

    Raises:
        ValueError: ``map_cells`` is less than 1.
    """

    def __init__(self, path: str | Path, map_cells: int = 48) -> None:
        if map_cells < 1:
            raise ValueError(f'map_cells={map_cells} must be at least 1')
        self.path = Path(path)
        self.map_cells = map_cells

    def __enter__(self) -> 'Page':
        template = _TEMPLATE.read_text(encoding='utf-8')
        template = template.replace('/* PALETTE */[]', json.dumps(PALETTE.tolist()))
        head, self._tail = template.split(_PLACE)
        self._part = self.path.with_name(f'{self.path.name}.part')
        self._file = self._part.open('w', encoding='utf-8')  # as it says in its head
        self._file.write(head)
        return self

    def add(self, name: str, scene: Scene) -> None:
        """Add an image under a name."""
        # In a script element nothing but "</" and "<!--" could end the data.
        data = json.dumps(scene_data(name, scene, self.map_cells)).replace('<', '\\u003c')
        self._file.write(
            f'<script type="application/json" class="scene" data-name="{html.escape(name)}">'
            f'{data}</script>\n'
        )

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        with self._file:
            if error is None:
                self._file.write(self._tail)
        if error is None:
            os.replace(self._part, self.path)
        else:
            self._part.unlink(missing_ok=True)


def scene_data(name: str, scene: Scene, map_cells: int) -> dict:
    """Build the page's data of an image; coordinates are pixels of the embedded image.

    Args:
        name: name of the image.
        scene: the image with its clusters and detections.
        map_cells: see :class:`Page`.

    Returns:
        Numbers and strings for JSON, read by the script of ``page.html``.
    """
    shrink = min(1.0, _MAX_SIDE / max(scene.image.shape[:2]))
    image = cv2.resize(scene.image, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
    jpeg = cv2.imencode('.jpg', image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])[1]
    blocks = [_block_data(scene, block, map_cells, shrink) for block in scene.blocks]
    return dict(
        name=name,
        width=image.shape[1],
        height=image.shape[0],
        image='data:image/jpeg;base64,' + _base64(jpeg),
        leftOut=[stage + 1 for stage in scene.left_out],
        segmented=scene.is_segmented,
        blocks=blocks,
        detections=[
            dict(
                name=detection.name,
                score=round(detection.score, 3),
                box=[round(v * shrink, 1) for v in detection.box],
                outline=_outline(detection.mask, shrink),
                coverage=[
                    _quantise(pool(scene.coverage(block, detection), _factor(block, map_cells)))
                    for block in scene.blocks
                ],
            )
            for detection in scene.detections
        ],
    )


def _block_data(scene: Scene, block: BlockRecord, map_cells: int, shrink: float) -> dict:
    factor = _factor(block, map_cells)
    # (M, H, W) -> (M, h, w): the sum over a cell's patches.
    assignment = pool(block.assignment[0], factor)
    # (heads, H, W, M) -> (heads, M, H, W) -> (heads, M, h, w): the mean over a cell's patches.
    attention = pool(block.recorded_attention()[0].permute(0, 3, 1, 2), factor)
    attention = attention / attention.sum(1, keepdim=True)
    rows, columns = assignment.shape[-2:]
    return dict(
        stage=block.stage + 1,
        block=block.block + 1,
        title='segmentation head' if block.is_head else f'stage {block.stage + 1}',
        names=scene.cluster_names(block),
        predicted=_predicted(scene, block, factor),
        heads=attention.shape[0],
        clusters=assignment.shape[0],
        rows=rows,
        columns=columns,
        cell=[v * shrink for v in scene.geometry.cell_box(block.stride * factor)],
        order=block.received()[0].argsort(descending=True).tolist(),
        assignment=_quantise(assignment.flatten(1)),  # (M, n)
        # (heads, M, h, w) -> (heads, M, n) -> (heads, n, M)
        attention=_quantise(attention.flatten(2).transpose(1, 2)),
        labels=_base64(assignment.argmax(0).numpy().astype('<u2')),
    )


def _predicted(scene: Scene, block: BlockRecord, factor: int) -> list[int]:
    """Position among the detections of the one that covers most of each cell, -1 for none.

    Empty for all models but segmentors.
    """
    if not (scene.is_segmented and scene.detections):
        return []
    covered = torch.stack(
        [pool(scene.coverage(block, region), factor) for region in scene.detections]
    )
    most, which = covered.max(0)
    return torch.where(most > 0, which, -1).flatten().tolist()


def _factor(block: BlockRecord, map_cells: int) -> int:
    return -(-max(block.assignment.shape[-2:]) // map_cells)


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


def _quantise(rows: Tensor) -> str:
    """Encode distributions as bytes, 255 * sqrt(value / maximum of the row).

    The square root keeps small values apart (the smallest is 1.5e-5 of the largest). The page
    squares the bytes and divides each row by its sum.
    """
    rows = rows / rows.amax(-1, keepdim=True).clamp_min(1e-30)
    return _base64((255 * rows.sqrt()).round().to(torch.uint8).numpy())


def _base64(array: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


def _outline(mask: np.ndarray, shrink: float) -> list[list[float]]:
    """Return a region's outlines as flat lists of x and y."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return [
        # + 0.5: the centre of a pixel.
        [round(float(v), 1) for v in ((cv2.approxPolyDP(c, 0.7, True) + 0.5) * shrink).flat]
        for c in contours
    ]
