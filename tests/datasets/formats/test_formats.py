"""Labels of five formats: what is read, to the pixel, and what is refused."""

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from mmpaca.datasets.formats import find_labels, read_labels
from mmpaca.datasets.formats.labels import ImageIndex, split_of

HEIGHT, WIDTH = 30, 40


def write_image(path: Path, size: tuple[int, int] = (WIDTH, HEIGHT), **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', size).save(path, **options)
    return path


def write(path: Path, content: str | dict) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def voc(name: str, box=(1, 2, 10, 20), size=(WIDTH, HEIGHT), label='cat', difficult=0) -> str:
    edges = ''.join(
        f'<{edge}>{value}</{edge}>'
        for edge, value in zip(('xmin', 'ymin', 'xmax', 'ymax'), box, strict=True)
    )
    return (
        f'<annotation><filename>{name}</filename>'
        f'<size><width>{size[0]}</width><height>{size[1]}</height></size>'
        f'<object><name>{label}</name><difficult>{difficult}</difficult>'
        f'<bndbox>{edges}</bndbox></object></annotation>'
    )


def objects(root: Path) -> list:
    (image,) = read_labels(root).images
    return image.objects


def test_voc(tmp_path):
    """The first pixel is no. 1: xmin 1 is the left edge, xmax 10 ends at 10."""
    for name, split, difficult in (('a', 'train', 0), ('b', 'val', 1), ('c', 'test', 0)):
        write_image(tmp_path / f'JPEGImages/{name}.jpg')
        write(tmp_path / f'Annotations/{name}.xml', voc('old.jpg', difficult=difficult))
        write(tmp_path / f'ImageSets/Main/{split}.txt', f'{name}\n')
    write_image(tmp_path / 'JPEGImages/d.jpg')
    labels = read_labels(tmp_path)
    assert (labels.format, labels.classes) == ('voc', ['cat'])
    assert [(i.path.name, i.split, i.size) for i in labels.images] == [
        ('a.jpg', 'train', (HEIGHT, WIDTH)),
        ('b.jpg', 'val', (HEIGHT, WIDTH)),
        ('c.jpg', 'test', (HEIGHT, WIDTH)),
    ]
    assert [o.bbox for i in labels.images for o in i.objects] == [(0, 1, 10, 19)] * 3
    assert [o.ignored for i in labels.images for o in i.objects] == [False, True, False]
    assert labels.notes == [
        '1 objects are marked difficult; they are ignored',
        '1 images have no XML file; they are left out',
    ]


def test_voc_split_by_folders_and_by_nearness(tmp_path):
    """Two images of one name: each label file finds the one in its folder."""
    for split in ('train', 'valid'):
        write_image(tmp_path / split / 'a.jpg')
        write(tmp_path / split / 'a.xml', voc('a.jpg'))
    assert [(i.path.parent.name, i.split) for i in read_labels(tmp_path).images] == [
        ('train', 'train'),
        ('valid', 'val'),
    ]


def yolo(root: Path, text: str, yaml: str = 'train: images/train\nval: images/train\nnames: [cat, dog]') -> Path:  # fmt: skip
    write_image(root / 'images/train/a.png')
    write(root / 'data.yaml', yaml)
    return write(root / 'labels/train/a.txt', text)


def test_yolo(tmp_path):
    yolo(tmp_path, '1 0.5 0.5 0.25 0.2\n\n0 0.1 0.1 0.6 0.1 0.6 0.5\n')
    write_image(tmp_path / 'images/train/b.png')
    labels = read_labels(tmp_path)
    assert (labels.format, labels.classes) == ('yolo', ['cat', 'dog'])
    assert [(i.path.name, i.split) for i in labels.images] == [
        ('a.png', 'train'),
        ('b.png', 'train'),
        ('a.png', 'val'),
        ('b.png', 'val'),
    ]
    box, polygon = labels.images[0].objects
    assert (box.name, box.segmentation) == ('dog', None)
    assert box.bbox == pytest.approx((15, 12, 10, 6))
    assert polygon.name == 'cat' and polygon.bbox == pytest.approx((4, 3, 20, 12))
    assert polygon.segmentation == [pytest.approx([4, 3, 24, 3, 24, 15])]
    assert labels.images[1].objects == []
    assert labels.notes == ['2 images have no text file; they are used as background']


def test_yolo_with_a_list_of_classes_and_turned_photographs(tmp_path):
    """Sizes are as shown: EXIF's orientation swaps them."""
    exif = Image.Exif()
    exif[0x0112] = 6
    write_image(tmp_path / 'val/a.jpg', exif=exif)
    write(tmp_path / 'val/a.txt', '0 0.5 0.5 1 1')
    write(tmp_path / 'classes.txt', 'cat\n')
    (image,) = read_labels(tmp_path).images
    assert (image.size, image.split) == ((WIDTH, HEIGHT), 'val')
    assert image.objects[0].bbox == (0, 0, HEIGHT, WIDTH)


def test_yolo_of_roboflow(tmp_path):
    write_image(tmp_path / 'train/images/a.png')
    write(tmp_path / 'train/labels/a.txt', '0 0.5 0.5 1 1')
    write(tmp_path / 'data.yaml', 'train: ../train/images\nnames: {0: cat}\n')
    assert objects(tmp_path)[0].bbox == (0, 0, WIDTH, HEIGHT)


def labelme(*shapes: dict) -> dict:
    return dict(imagePath='..\\a.png', imageHeight=HEIGHT, imageWidth=WIDTH, shapes=list(shapes))


def shape(kind: str, *points, label='cat', **more) -> dict:
    return dict(label=label, shape_type=kind, points=[list(p) for p in points], **more)


def test_labelme(tmp_path):
    write_image(tmp_path / 'a.png')
    mask = io.BytesIO()
    Image.fromarray(np.array([[0, 1, 1], [1, 1, 1]], np.uint8)).save(mask, 'PNG')
    content = labelme(
        shape('polygon', (1, 2), (11, 2), (6, 8), group_id=1),
        shape('polygon', (21, 2), (31, 2), (26, 9), group_id=1),
        shape('rectangle', (10, 12), (5, 4), label='dog'),
        shape('circle', (20, 15), (20, 20)),
        shape('mask', (7, 3), (9, 4), mask=base64.b64encode(mask.getvalue()).decode()),
        shape('point', (1, 1)),
    )
    write(tmp_path / 'a.json', content)
    labels = read_labels(tmp_path)
    assert (labels.format, labels.classes) == ('labelme', ['cat', 'dog'])
    assert labels.notes == ['1 shapes of type point are left out']
    group, box, circle, bits = labels.images[0].objects
    assert group.bbox == (1, 2, 30, 7) and len(group.segmentation) == 2
    assert (box.bbox, box.segmentation) == ((5, 4, 5, 8), None)
    assert circle.bbox == pytest.approx((15, 10, 10, 10))
    assert bits.bbox == (7, 3, 3, 2)
    decoded = coco_mask.decode(bits.segmentation)
    assert decoded.shape == (HEIGHT, WIDTH) and decoded.sum() == 5 and not decoded[3, 7]


def cvat(shapes: str, name: str = 'a.png', more: str = '') -> str:
    return (
        '<annotations><meta><job><labels><label><name>dog</name></label>'
        '<label><name>cat</name></label></labels></job></meta>'
        f'<image id="0" name="{name}" width="{WIDTH}" height="{HEIGHT}" {more}>{shapes}</image>'
        '</annotations>'
    )


def test_cvat(tmp_path):
    write_image(tmp_path / 'images/a.png')
    shapes = (
        '<box label="cat" xtl="2" ytl="3" xbr="12" ybr="9"/>'
        '<box label="cat" xtl="10" ytl="10" xbr="20" ybr="14" rotation="90"/>'
        '<polygon label="dog" points="1,2;11,2;6,8"/>'
        '<mask label="dog" rle="1,3,2" left="7" top="4" width="3" height="2"/>'
        '<points label="dog" points="1,2"/>'
    )
    write(tmp_path / 'annotations.xml', cvat(shapes, more='subset="Validation"'))
    labels = read_labels(tmp_path)
    assert (labels.format, labels.classes) == ('cvat', ['dog', 'cat'])
    assert labels.notes == ['1 shapes that are neither boxes, polygons nor masks are left out']
    (image,) = labels.images
    box, turned, polygon, bits = image.objects
    assert image.split == 'val' and box.bbox == (2, 3, 10, 6)
    assert turned.bbox == pytest.approx((13, 7, 4, 10))
    assert (polygon.bbox, polygon.segmentation) == ((1, 2, 10, 6), [[1, 2, 11, 2, 6, 8]])
    decoded = coco_mask.decode(bits.segmentation)
    assert np.argwhere(decoded).tolist() == [[4, 8], [4, 9], [5, 7]]


def coco(name: str = 'a.png', **annotation) -> dict:
    one = dict(id=1, image_id=5, category_id=3, bbox=[1, 2, 3, 4], iscrowd=1, area=12)
    return dict(
        images=[dict(id=5, file_name=name, height=HEIGHT, width=WIDTH)],
        annotations=[one | annotation],
        categories=[dict(id=3, name='cat')],
    )


def test_coco(tmp_path):
    for split in ('train', 'val'):
        write_image(tmp_path / f'{split}2017/a.png')
        write(tmp_path / f'annotations/instances_{split}2017.json', coco(segmentation=[[1.0] * 6]))
    write(tmp_path / 'annotations/captions_train2017.json', dict(images=[], annotations=[]))
    labels = read_labels(tmp_path)
    assert (labels.format, labels.classes) == ('coco', ['cat'])
    assert [(i.split, i.path.parent.name) for i in labels.images] == [
        ('train', 'train2017'),
        ('val', 'val2017'),
    ]
    (one,) = labels.images[0].objects
    assert (one.bbox, one.ignored, one.segmentation) == ((1, 2, 3, 4), True, [[1.0] * 6])


@pytest.mark.parametrize(
    ('path', 'split'),
    [
        ('train/a.jpg', 'train'),
        ('valid/images/a.jpg', 'val'),
        ('annotations/instances_val2017.json', 'val'),
        ('training-data/test', 'test'),
        ('trains/a.jpg', ''),
        ('constrain/a.jpg', ''),
    ],
)
def test_splits_named_by_paths(path, split):
    assert split_of(Path(path)) == split


def test_equally_near_images(tmp_path):
    for folder in 'xy':
        write_image(tmp_path / folder / 'a.png')
    index = ImageIndex(tmp_path)
    assert index.find('C:\\data\\x\\a.png', tmp_path / 'a.xml') == tmp_path / 'x/a.png'
    with pytest.raises(ValueError, match='fit equally well'):
        index.find('a.png', tmp_path / 'a.xml')
    assert index.find('b.png', tmp_path / 'b.xml') is None


def _empty(root):
    write(root / 'readme.txt', 'nothing')


def _mixed(root):
    yolo(root, '0 0.5 0.5 1 1')
    write(root / 'a.xml', voc('a.png'))


def _two_trains(root):
    write_image(root / 'a.png')
    for name in ('train.json', 'train_clean.json'):
        write(root / name, coco())


def _no_image(root):
    write(root / 'a.xml', voc('a.jpg'))


def _half_an_xml(root):
    write_image(root / 'a.png')
    write(root / 'a.xml', voc('a.png')[:-9])


def _nothing_labelled(root):
    yolo(root, '')


def _voc(change, value):
    def build(root):
        write_image(root / 'a.png')
        write(root / 'a.xml', voc('a.png', **{change: value}))

    return build


@pytest.mark.parametrize(
    ('build', 'says'),
    [
        (_empty, 'no labels below .*: put files in the format COCO, Pascal VOC, YOLO'),
        (_mixed, r'several formats below .* \(voc: 1, first .*; yolo: 1, .*--format'),
        (_two_trains, 'train.json and .*train_clean.json name the split train: keep one'),
        (_no_image, '1 of 1 labelled images are not below .*, first a.jpg: copy the images there'),
        (_half_an_xml, 'a.xml is not a whole XML file'),
        (_voc('box', (1, 2, 'x', 4)), "a.xml: an object 'cat' has the box .*'xmax': 'x'.*numbers"),
        (_voc('label', ''), 'an object has no name'),
        (_nothing_labelled, 'no object is labelled'),
        (lambda r: yolo(r, '2 0.5 0.5 1 1'), 'line 1: class 2 is unknown, there are 2 names'),
        (lambda r: yolo(r, '0 0 0 1 1\n0 20 15 8 6'), r"line 2: '0 20 15 8 6' is invalid: a class"),
        (lambda r: yolo(r, '0 0.5 0.5 1'), 'line 1: .* is invalid'),
        (lambda r: yolo(r, 'cat 0.5 0.5 1 1'), 'line 1: .* is invalid'),
        (lambda r: yolo(r, '', 'names: [cat]\ntrain: imgs'), 'train: imgs does not exist'),
        (lambda r: yolo(r, '', 'names: [cat]\nval: images'), 'train is missing'),
        (
            lambda r: (write_image(r / 'a.png'), write(r / 'a.json', labelme(shape('polygon')))),
            'a.json: a shape is invalid',
        ),
        (
            lambda r: (write_image(r / 'a.png'), write(r / 'a.xml', cvat('<track/>', more=''))),
            None,
        ),
        (lambda r: write(r / 'a.xml', '<annotations><track/></annotations>'), 'tracks of a video'),
        (
            lambda r: (write_image(r / 'a.png'), write(r / 'a.xml', cvat('<box label="cat"/>'))),
            r"image a.png has an invalid shape \(KeyError\('xtl'\)\)",
        ),
        (
            lambda r: (write_image(r / 'a.png'), write(r / 'a.json', coco(category_id=4))),
            'annotation no. 0 has no known category or no box: run mmpaca check-data',
        ),
    ],
)
def test_one_sentence(tmp_path, build, says):
    build(tmp_path)
    with pytest.raises(ValueError) as error:
        read_labels(tmp_path)
    assert re.search(says or 'no object is labelled', str(error.value)), error.value


def test_a_chosen_format(tmp_path):
    _mixed(tmp_path)
    assert list(find_labels(tmp_path)) == ['voc', 'yolo']
    assert read_labels(tmp_path, 'voc').classes == ['cat']
    with pytest.raises(ValueError, match='no labels below .*: put files in the format cvat there'):
        read_labels(tmp_path, 'cvat')
    with pytest.raises(ValueError, match='folder not found'):
        read_labels(tmp_path / 'nowhere')


def test_a_few_missing_images_are_noted(tmp_path):
    for number in range(20):
        write(tmp_path / f'{number:02}.xml', voc(f'{number:02}.jpg'))
        if number:
            write_image(tmp_path / f'{number:02}.jpg')
    labels = read_labels(tmp_path)
    assert len(labels.images) == 19
    assert labels.notes == [
        f'1 of 20 labelled images are not below {tmp_path}, first 00.jpg; they are left out'
    ]
