"""Splits, classes and tasks of own data, and the COCO files that are written."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmpaca.apis.own_data.prepare import has_mask, prepare_data
from mmpaca.apis.own_data.splitting import split_randomly
from mmpaca.apis.own_data.statistics import measure_data
from mmpaca.datasets import CLASSES


def load(folder: Path, split: str) -> dict:
    return json.loads((folder / f'{split}.json').read_text())


def test_voc_becomes_the_same_coco(voc_shapes, shapes, tmp_path, capsys):
    """Boxes, names and sizes of the generated COCO files come back, in another order."""
    before = sorted(voc_shapes.rglob('*'))
    data = prepare_data(voc_shapes, tmp_path / 'out')
    assert (data.format, data.task, data.root) == ('voc', 'detect', voc_shapes)
    assert data.classes == tuple(sorted(CLASSES))
    assert data.notes == (
        'the data has no split: 5 of 24 images were drawn for validation (seed 0), image by image',
    )
    assert sorted(voc_shapes.rglob('*')) == before
    found, expected = {}, {}
    for split, number in (('train', 19), ('val', 5)):
        coco = load(data.ann_dir, split)
        assert len(coco['images']) == number
        names = {image['id']: Path(image['file_name']).stem for image in coco['images']}
        for one in coco['annotations']:
            kind = data.classes[one['category_id'] - 1]
            found.setdefault(names[one['image_id']], []).append((kind, *one['bbox']))
            assert one['area'] == pytest.approx(one['bbox'][2] * one['bbox'][3])
    for split in ('train', 'val'):
        coco = load(shapes / 'annotations', split)
        names = {i['id']: f'{split}{Path(i["file_name"]).stem}x' for i in coco['images']}
        for one in coco['annotations']:
            kind = CLASSES[one['category_id'] - 1]
            expected.setdefault(names[one['image_id']], []).append((kind, *one['bbox']))
    assert found.keys() == expected.keys()
    for name, boxes in expected.items():
        assert [box[0] for box in found[name]] == [box[0] for box in boxes]
        np.testing.assert_allclose([b[1:] for b in found[name]], [b[1:] for b in boxes])
    assert '0 broken, 0 to look at' in capsys.readouterr().out


def test_coco_with_masks(shapes, tmp_path):
    data = prepare_data(shapes, tmp_path / 'out')
    assert (data.format, data.task, data.classes, data.notes) == ('coco', 'instance', CLASSES, ())
    for split in ('train', 'val'):
        given, written = load(shapes / 'annotations', split), load(data.ann_dir, split)
        assert [i['file_name'] for i in written['images']] == [
            f'{split}/{i["file_name"]}' for i in given['images']
        ]
        for one, other in zip(given['annotations'], written['annotations'], strict=True):
            assert one['segmentation'] == other['segmentation'] and one['bbox'] == other['bbox']
            assert other['area'] == pytest.approx(one['area'], rel=0.1, abs=8)
    assert prepare_data(shapes, tmp_path / 'boxes', task='detect').task == 'detect'
    assert 'segmentation' not in load(tmp_path / 'boxes', 'val')['annotations'][0]


def changed(shapes: Path, tmp_path: Path, change) -> Path:
    """The shapes with changed annotations."""
    root = tmp_path / 'changed'
    root.mkdir()
    for split in ('train', 'val'):
        coco = load(shapes / 'annotations', split)
        change(split, coco)
        (root / f'{split}.json').write_text(json.dumps(coco))
        (root / split).mkdir()
        for file in (shapes / split).iterdir():
            (root / split / file.name).hardlink_to(file)
    return root


def test_classes_without_training_objects(shapes, tmp_path):
    def change(split: str, coco: dict) -> None:
        coco['categories'].append(dict(id=9, name='heart'))
        if split == 'train':
            coco['annotations'] = [a for a in coco['annotations'] if a['category_id'] != 1]

    data = prepare_data(changed(shapes, tmp_path, change), tmp_path / 'out')
    assert data.classes == CLASSES[1:]
    assert [c['name'] for c in load(data.ann_dir, 'val')['categories']] == list(CLASSES[1:])
    lost = sum(a['category_id'] == 1 for a in load(shapes / 'annotations', 'val')['annotations'])
    assert data.notes == (
        f'2 classes without objects in training are left out: {CLASSES[0]}, heart',
        f'{lost} val objects of class {CLASSES[0]}, which has none in training, are left out',
    )


def test_broken_entries_are_left_out(shapes, tmp_path):
    def change(split: str, coco: dict) -> None:
        coco['annotations'][0]['bbox'] = [500.0, 0.0, 9.0, 9.0]

    data = prepare_data(changed(shapes, tmp_path, change), tmp_path / 'out')
    assert data.notes == tuple(
        f'1 broken entries of {split} (listed above) are left out' for split in ('train', 'val')
    )
    total = len(load(shapes / 'annotations', 'val')['annotations'])
    assert len(load(data.ann_dir, 'val')['annotations']) == total - 1


@pytest.mark.parametrize('number', [1, 0])
def test_masks_of_some(shapes, tmp_path, number):
    def change(split: str, coco: dict) -> None:
        for one in coco['annotations'][number:]:
            one['segmentation'] = []

    root = changed(shapes, tmp_path, change)
    with pytest.raises(ValueError, match=r'--task instance: \d+ of \d+ objects have no mask'):
        prepare_data(root, tmp_path / 'out', task='instance')
    data = prepare_data(root, tmp_path / 'out')
    assert data.task == 'detect'
    assert [n.partition(' of ')[0] for n in data.notes] == ['2'] * number


@pytest.mark.parametrize(
    ('split', 'says'),
    [('train', 'no image of the train split has objects'), ('val', 'no image of the val split')],
)
def test_an_empty_split(shapes, tmp_path, split, says):
    def change(name: str, coco: dict) -> None:
        if name == split:
            coco['annotations'] = []

    with pytest.raises(ValueError, match=says):
        prepare_data(changed(shapes, tmp_path, change), tmp_path / 'out')


def test_outline_of_a_box_is_no_mask():
    box = (1, 2, 10, 5)
    assert not has_mask([[1, 2, 11, 2, 11, 7, 1, 7]], box)
    assert not has_mask([[1, 2, 11, 2, 11, 7, 1, 7, 1, 2]], box)
    assert has_mask([[1, 2, 11, 2, 11, 7, 5, 7]], box)
    assert has_mask(dict(size=[9, 9], counts='x'), box)
    assert not has_mask([], box) and not has_mask(None, box)


def test_groups_stay_together():
    paths = [Path(f'patient{p}_slice_{s:02}.png') for p in range(10) for s in range(6)]
    chosen, how = split_randomly(paths)
    assert len(chosen) == 12 and len({p.name.split('_')[0] for p in chosen}) == 2
    assert '10 groups' in how
    assert split_randomly(paths[::-1])[0] == chosen != split_randomly(paths, seed=1)[0]
    # One series, or names without a system: each image by itself.
    for names in ([f'cell_{i}' for i in range(20)], [f'{i:x}{i}z' for i in range(20)]):
        chosen, how = split_randomly([Path(name) for name in names])
        assert len(chosen) == 4 and 'image by image' in how
    with pytest.raises(ValueError, match='1 labelled image: training and validation need'):
        split_randomly(paths[:1])


def test_dark_16_bit_images(shapes, tmp_path):
    data = prepare_data(shapes, tmp_path / 'out')
    found = measure_data(data)
    assert found.num_images == dict(train=16, val=8) and not found.grey
    coco = load(data.ann_dir, 'train')
    sizes = [np.sqrt(a['bbox'][2] * a['bbox'][3]) for a in coco['annotations']]
    np.testing.assert_allclose(found.sizes, sizes)
    assert sum(found.counts.values()) == len(sizes) == found.per_image.sum()
    for bits, value in ((16, 4000), (16, 60000)):
        pixels = np.full((64, 64), value, np.uint16)
        pixels[0, 0] = 0
        for image in coco['images']:
            path = tmp_path / 'deep' / image['file_name']
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
        deep = type(data)(**{**vars(data), 'root': tmp_path / 'deep'})
        if value < 2**14:
            with pytest.raises(ValueError, match=f'{bits} bits a pixel with values up to 4000'):
                measure_data(deep)
        else:
            assert measure_data(deep).grey
