"""Hostile annotation files: each fault is found, none ends in a traceback."""

import numpy as np
import pytest
from pycocotools import mask

from mmpaca.datasets.coco_categories import check_category_order
from mmpaca.datasets.coco_faults import (
    FAULTS,
    Fault,
    decompressed,
    find_faults,
    for_evaluation,
    read_annotations,
    without_faults,
)


def test_some_classes_of_a_file_keep_their_order():
    categories = [dict(id=i, name=name) for i, name in enumerate('abcd')]
    check_category_order(categories, ('b', 'd'))
    check_category_order(categories, 'abcd')
    for classes, says in (('db', 'are in the order'), ('ax', r"not \['x'\]")):
        with pytest.raises(ValueError, match=says):
            check_category_order(categories, tuple(classes))


def one_annotation(**changes):
    """A file with one image and one annotation."""
    annotation = dict(
        id=1, image_id=1, category_id=1, bbox=[0, 0, 9, 9], area=81, iscrowd=0,
        segmentation=[[0, 0, 9, 0, 9, 9]],
    )  # fmt: skip
    return dict(
        images=[dict(id=1, file_name='a.png', width=20, height=10)],
        categories=[dict(id=1, name='a')],
        annotations=[{**annotation, **changes}],
    )


@pytest.mark.parametrize(
    ('segmentation', 'kind'),
    [
        ([[0, 0, 1e9, 0, 9, 9]], 'segmentation: far outside of the image'),
        ([[0, 0, -1e7, 0, 9, 9]], 'segmentation: far outside of the image'),
        ([[0, 0, 10**400, 0, 9, 9]], 'segmentation: not finite'),
        ([[0, 0, '1', 0, 9, 9]], 'segmentation: not finite'),
        (5, 'segmentation: not finite'),
        ('abc', 'segmentation: not finite'),
        ([5], 'segmentation: not finite'),
        (dict(size=[10, 20], counts=[150]), 'segmentation: RLE of another size'),
        (dict(size=[10, 20], counts=[100, -50, 150]), 'segmentation: invalid RLE'),
        (dict(size=[10, 20], counts=[1.5, 198.5]), 'segmentation: invalid RLE'),
        (dict(size=[10, 20], counts=['200']), 'segmentation: invalid RLE'),
        (dict(size=[10, 20], counts=7), 'segmentation: invalid RLE'),
        (dict(size=[10, 20], counts='ooo'), 'segmentation: invalid RLE'),
        (dict(size=[10, 20], counts='~'), 'segmentation: invalid RLE'),
        (dict(size=[10, 20], counts='o' * 100 + '0'), 'segmentation: invalid RLE'),
        (dict(size=[10, 20], counts='12'), 'segmentation: RLE of another size'),
        (dict(size=[10**9, 10**9], counts=[10**18]), 'segmentation: RLE of another size'),
        (dict(size=5, counts=[200]), 'segmentation: RLE of another size'),
    ],
)  # fmt: skip
def test_segmentations_that_crash_pycocotools_are_found(segmentation, kind):
    faults = list(find_faults(one_annotation(segmentation=segmentation)))
    assert [fault.kind for fault in faults][:1] == [kind]


@pytest.mark.parametrize(
    ('changes', 'kind'),
    [
        (dict(file_name='../../etc/passwd'), 'image: file name leads out of the folder'),
        (dict(file_name='/etc/passwd'), 'image: file name leads out of the folder'),
        (dict(file_name='\ud800'), 'image: no file name or size'),
        (dict(width=10**5, height=10**5), 'image: more pixels than are decoded'),
    ],
)
def test_images_that_are_not_opened(changes, kind):
    coco = one_annotation()
    coco['images'][0].update(changes)
    assert next(find_faults(coco)).kind == kind


def test_a_million_annotations_of_an_image():
    coco = one_annotation()
    coco['annotations'] = [dict(coco['annotations'][0], id=i) for i in range(10**5)]
    found = next(find_faults(coco, thorough=False))
    assert str(found) == 'a.png: image: more annotations than are read (100000, at most 10000)'
    coco['annotations'] = coco['annotations'][:2000]
    assert not list(find_faults(coco, thorough=False))
    coco['images'][0].update(width=10**4, height=10**4)  # 200 GB of masks
    assert next(find_faults(coco)).detail == '2000, at most 85'
    assert not list(find_faults(coco, with_mask=False, thorough=False))


def test_crowds_and_ids():
    assert [f.kind for f in find_faults(one_annotation(iscrowd=[]))][:1] == [
        'iscrowd: neither 0 nor 1'
    ]
    coco = one_annotation()
    del coco['annotations'][0]['iscrowd']
    assert not list(find_faults(coco, thorough=False))
    assert for_evaluation(coco, [])['annotations'][0]['iscrowd'] == 0  # as mmdet reads it
    coco['images'].append(dict(coco['images'][0], id='2'))
    assert next(find_faults(coco)).kind == 'image: id of another type than the others'
    coco['categories'].append(dict(id='2', name='b'))
    with pytest.raises(ValueError, match='some categories have a number as id, others a text'):
        list(find_faults(coco))


def test_names_do_not_reach_the_terminal_as_they_are():
    fault = Fault('image: no annotations', 'a\x1b[31m\n\u202eb.png')
    assert str(fault) == r'a\x1b[31m\n\u202eb.png: image: no annotations'


def test_encodings():
    assert read_annotations('{"a": "ä"}'.encode()) == dict(a='ä')
    for content, says in (
        ('{}'.encode('utf-16'), 'not a JSON file in UTF-8'),
        (b'\xef\xbb\xbf{}', 'not a JSON file: Unexpected UTF-8 BOM'),
        (b'[' * 10**5, 'not a JSON file: maximum recursion depth'),
        (b'{"images": [', 'not a JSON file: Expecting value'),
    ):
        with pytest.raises(ValueError, match=says):
            read_annotations(content)


def test_compressed_rle_is_read_as_by_pycocotools():
    rng = np.random.default_rng(0)
    for height, width in ((1, 1), (10, 20), (300, 500)):
        pixels = rng.random((height, width)) < rng.random()
        rle = mask.encode(np.asfortranarray(pixels.astype(np.uint8)))
        edges = np.flatnonzero(np.diff(pixels.T.ravel().astype(int), prepend=0)).tolist()
        expected = np.diff([0, *edges, pixels.size]).tolist()
        assert decompressed(rle['counts'].decode()) == expected


VALUES = (
    None, True, 0, -1, 5, 10**400, 1e300, float('nan'), float('inf'), '', 'a', '\0', [], [None],
    [[]], {}, dict(a=1), [1, 2, 3, 4], ['1'] * 4, [[1, 2, 3, 4, 5, 6]], [[1e300] * 6],
    dict(size=[], counts=[]), dict(size=[10, 20], counts={}), [float('nan')] * 4,
)  # fmt: skip


@pytest.mark.parametrize('place', ['images', 'annotations', 'categories'])
def test_any_json_gives_faults_or_one_error(place):
    """No traceback: what is left can be used."""
    entries = [*VALUES, *({**one_annotation()[place][0], key: value}
               for key in one_annotation()[place][0] for value in VALUES)]  # fmt: skip
    for entry in entries:
        for lists in ([entry], [entry, *one_annotation()[place]]):
            for with_mask in (True, False):
                coco = {**one_annotation(), place: lists}
                try:
                    faults = list(find_faults(coco, with_mask))
                except ValueError as error:
                    assert place == 'categories' and str(error)
                    continue
                assert all(str(fault) and fault.kind in FAULTS for fault in faults)
                clean = without_faults(coco, faults)
                assert all(FAULTS[f.kind] == 'stays' for f in find_faults(clean, with_mask)
                           ) if clean['images'] and clean['annotations'] else True  # fmt: skip
