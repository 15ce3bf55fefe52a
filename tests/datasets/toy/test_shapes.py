import json

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

from mmpaca.datasets import CLASSES, write_shapes


@pytest.fixture(scope='module')
def coco(shapes, tmp_path_factory) -> COCO:
    return COCO(str(shapes / 'annotations/train.json'))


def test_contents(coco, shapes):
    assert len(coco.imgs) == 16 and len(list((shapes / 'val').glob('*.png'))) == 8
    assert tuple(c['name'] for c in coco.loadCats(coco.getCatIds())) == CLASSES
    assert {a['category_id'] for a in coco.anns.values()} == {1, 2, 3, 4}
    for image in coco.imgs.values():
        picture = cv2.imread(str(shapes / 'train' / image['file_name']))
        assert picture.shape == (64, 64, 3) == (image['height'], image['width'], 3)
        assert picture.std() > 5


def test_masks_are_the_visible_parts(coco):
    for annotation in coco.anns.values():
        mask = coco.annToMask(annotation)
        # The polygon's own area; rasterising it may err by half a pixel along its outline.
        outline = sum(
            cv2.arcLength(np.float32(part).reshape(-1, 1, 2), True)
            for part in annotation['segmentation']
        )
        assert abs(mask.sum() - annotation['area']) < 0.6 * outline
        rows, columns = np.nonzero(mask)
        x, y, w, h = annotation['bbox']
        assert x - 1 <= columns.min() and columns.max() <= x + w + 1
        assert y - 1 <= rows.min() and rows.max() <= y + h + 1
        assert x >= 0 and x + w <= 64 and y >= 0 and y + h <= 64
    for image in coco.imgs:  # what hides another shape takes its pixels away from it
        masks = [coco.annToMask(a) for a in coco.loadAnns(coco.getAnnIds([image]))]
        eroded = [cv2.erode(m, np.ones((3, 3), np.uint8)) for m in masks]
        assert sum(eroded).max() == 1


def test_shapes_touch_hide_each_other_and_reach_the_border(coco):
    corners = [len(a['segmentation'][0]) // 2 for a in coco.anns.values() if a['category_id'] == 2]
    at_border = [a['bbox'][0] == 0 or a['bbox'][1] == 0 for a in coco.anns.values()]
    # A square with more than four corners is cut by another shape or by the border.
    assert max(corners) > 4 and any(at_border) and not all(at_border)


def test_colours_lie_where_the_masks_say(coco, shapes):
    """Inside a mask the texture is calmer than between inside and outside."""
    inside, across = [], []
    for annotation in coco.anns.values():
        picture = cv2.imread(str(shapes / 'train' / f'{annotation["image_id"]:06d}.png')).astype(
            float
        )
        mask = coco.annToMask(annotation)
        core = cv2.erode(mask, np.ones((3, 3), np.uint8)).astype(bool)
        ring = (
            cv2.dilate(mask, np.ones((5, 5), np.uint8))
            - cv2.dilate(mask, np.ones((3, 3), np.uint8))
        ).astype(bool)
        if core.sum() < 20:
            continue
        inside.append(picture[core].std(axis=0).mean())
        across.append(np.abs(picture[core].mean(axis=0) - picture[ring].mean(axis=0)).mean())
    assert np.mean(inside) < 0.5 * np.mean(across)


def test_same_arguments_same_bytes_and_more_images_leave_the_first_alone(shapes, tmp_path):
    write_shapes(tmp_path, 17, 8, image_size=64)
    for path in sorted((shapes / 'train').glob('*.png')) + [shapes / 'annotations/val.json']:
        assert path.read_bytes() == (tmp_path / path.relative_to(shapes)).read_bytes()
    write_shapes(tmp_path, 1, 1, image_size=64, seed=1)
    assert (tmp_path / 'train/000001.png').read_bytes() != (
        shapes / 'train/000001.png'
    ).read_bytes()
    splits = [json.loads((shapes / f'annotations/{s}.json').read_text()) for s in ('train', 'val')]
    assert splits[0]['annotations'][0]['bbox'] != splits[1]['annotations'][0]['bbox']


def test_no_annotations_of_images_that_cannot_be_written(tmp_path):
    (tmp_path / 'val/000002.png').mkdir(parents=True)
    with pytest.raises(IsADirectoryError):
        write_shapes(tmp_path, 1, 2, image_size=32)
    assert [p.name for p in (tmp_path / 'annotations').iterdir()] == ['train.json']


@pytest.mark.parametrize('wrong', [dict(image_size=16), dict(num_train=0), dict(num_val=0)])
def test_bad_sizes_are_named(tmp_path, wrong):
    with pytest.raises(ValueError, match='{}={}'.format(*next(iter(wrong.items())))):
        write_shapes(tmp_path, **wrong)
