"""Datasets of generated shapes, labelled as other tools do."""

import json
import shutil
from pathlib import Path

import pytest

from mmpaca.datasets import CLASSES


@pytest.fixture
def voc_shapes(shapes, tmp_path) -> Path:
    """The 16 + 8 shapes as Pascal VOC without a split, in a folder ``my shapes``."""
    root = tmp_path / 'my shapes'
    for split in ('train', 'val'):
        coco = json.loads((shapes / f'annotations/{split}.json').read_text())
        for image in coco['images']:
            stem = f'{split}{image["file_name"].removesuffix(".png")}x'
            boxes = [a for a in coco['annotations'] if a['image_id'] == image['id']]
            objects = ''.join(_voc_object(a) for a in boxes)
            (root / 'Annotations').mkdir(parents=True, exist_ok=True)
            (root / f'Annotations/{stem}.xml').write_text(
                f'<annotation><size><width>{image["width"]}</width>'
                f'<height>{image["height"]}</height></size>{objects}</annotation>'
            )
            (root / 'JPEGImages').mkdir(exist_ok=True)
            shutil.copy(shapes / split / image['file_name'], root / f'JPEGImages/{stem}.png')
    return root


def _voc_object(annotation: dict) -> str:
    x, y, width, height = annotation['bbox']
    edges = dict(xmin=x + 1, ymin=y + 1, xmax=x + width, ymax=y + height)
    box = ''.join(f'<{k}>{v}</{k}>' for k, v in edges.items())
    name = CLASSES[annotation['category_id'] - 1]
    return f'<object><name>{name}</name><bndbox>{box}</bndbox></object>'
