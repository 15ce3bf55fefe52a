"""Pictures of one image: clusters of each stage, relevance of patches to each detection."""

from collections.abc import Iterator, Sequence

import numpy as np

from . import pictures
from .recorder import BlockRecord
from .scene import Detection, Scene

_PER_ROW = 5
_DETECTIONS_PER_SHEET = 25


def all_sheets(scene: Scene, num_clusters: int = 9) -> Iterator[tuple[str, np.ndarray]]:
    """Draw every picture of an image except its detections.

    Args:
        scene: the image.
        num_clusters: heat maps per stage.

    Yields:
        The name, the same for every image and every training step, and the picture,
        (height, width, 3) uint8 RGB.
    """
    for block in scene.blocks:
        yield (
            'head' if block.is_head else f'{block.title}_block{block.block + 1}',
            cluster_sheet(scene, block, num_clusters),
        )
    for page, first in enumerate(range(0, len(scene.detections), _DETECTIONS_PER_SHEET), start=1):
        found = scene.detections[first : first + _DETECTIONS_PER_SHEET]
        yield f'looked_at_{page}', looked_at_sheet(scene, found)


def cluster_sheet(scene: Scene, block: BlockRecord, num_clusters: int = 9) -> np.ndarray:
    """Draw a block's strongest clusters, and heat maps of those that receive most attention.

    Args:
        scene: the image.
        block: one of its blocks.
        num_clusters: number of heat maps.

    Returns:
        (height, width, 3) uint8 RGB.
    """
    received = block.received()[0]
    order = received.argsort(descending=True).tolist()
    labels = scene.geometry.to_image(block.labels()[0].numpy(), block.stride, fill=-1)
    tiles = [pictures.segmentation(scene.image, labels, order)]
    where = _where(block)
    names = scene.cluster_names(block)
    captions = [f'{where}: strongest {"class" if block.is_head else "cluster"}']
    for cluster in order[:num_clusters]:
        heat = block.assignment[0, cluster].numpy()
        heat = scene.geometry.to_image(heat, block.stride)
        tiles.append(pictures.heat_map(scene.image, heat))
        captions.append(f'{names[cluster]}: {received[cluster]:.1%} of attention')
    return pictures.stack_rows(
        [
            pictures.tile_row(tiles[i : i + _PER_ROW], captions[i : i + _PER_ROW])
            for i in range(0, len(tiles), _PER_ROW)
        ]
    )


def looked_at_sheet(scene: Scene, detections: Sequence[Detection]) -> np.ndarray:
    """Draw a row per detection: its region, what decided it, and where it attends, per stage.

    Captions give the largest value of a map, as a multiple of an even spread.

    Args:
        scene: the image.
        detections: some of its detections.

    Returns:
        (height, width, 3) uint8 RGB.
    """
    rows = []
    for detection in detections:
        tiles = [pictures.outline_mask(scene.image, detection.mask)]
        captions = [f'{detection.name} {detection.score:.2f}']
        for caption, heat in _maps(scene, detection):
            heated = pictures.heat_map(scene.image, heat)
            tiles.append(pictures.outline_mask(heated, detection.mask))
            captions.append(f'{caption}, up to {heat.max() / max(heat.mean(), 1e-12):.1f}x')
        rows.append(pictures.tile_row(tiles, captions))
    return pictures.stack_rows(rows)


def _maps(scene: Scene, detection: Detection) -> Iterator[tuple[str, np.ndarray]]:
    """Yield caption and map, (height, width) of the image, of a detection."""
    if scene.attribution is not None:
        for other, heat in zip(scene.detections, scene.attribution, strict=False):
            if other is detection:
                yield 'what decided', heat
    for block in scene.blocks:
        heat = scene.relevance(block, detection)
        number = '' if block.is_head else f' block {block.block + 1}'
        yield f'{_where(block)}{number}', scene.geometry.to_image(heat, block.stride)


def _where(block: BlockRecord) -> str:
    return 'head' if block.is_head else f'stage {block.stage + 1}'
