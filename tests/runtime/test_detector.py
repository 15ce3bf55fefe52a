"""mmpaca-runtime computes what mmdet computes from the outputs of a file, and refuses other files."""

import ast

import numpy as np
import onnx
import pytest
from commands import ROOT
from handmade import BOXES, MASKS, OUTPUTS, make_model, write_model
from mmpaca_runtime import Detector, ModelError, Result
from PIL import Image

WHITE = np.full((16, 24, 3), 255, np.uint8)


def test_detections(model):
    detector = Detector(model, threads=1)
    assert (detector.task, detector.classes) == ('instance', ['cat', 'dog'])
    found = detector(WHITE)
    assert len(found) == 2 and found.names == ['dog', 'cat']  # the third row is none
    np.testing.assert_array_equal(found.boxes, BOXES[:2])
    np.testing.assert_allclose(found.scores, [0.9, 0.4])
    assert found.masks.shape == (2, 16, 24) and found.masks.dtype == bool
    # The inner half of a box of ten pixels; the other mask fills its box.
    assert found.masks[0].sum() == 24 and not found.masks[0, :5].any()
    assert found.masks[1, 1:9, 9:19].all()
    assert len(detector(WHITE, score_thr=0.5)) == 1


def test_batch_of_paths_pictures_and_arrays(model, tmp_path):
    detector = Detector(model, threads=1)
    Image.fromarray(WHITE // 2).save(tmp_path / 'half.png')
    images = [WHITE, tmp_path / 'half.png', Image.fromarray(WHITE[:9]), str(tmp_path / 'half.png')]
    found = detector(images)
    np.testing.assert_allclose(
        [r.scores[0] for r in found], [0.9, 0.9 * 127 / 255, 0.9, found[1].scores[0]]
    )
    assert [r.masks.shape[1] for r in found] == [16, 16, 9, 16]
    assert [r.image.shape for r in found] == [(16, 24, 3), (16, 24, 3), (9, 24, 3), (16, 24, 3)]


def test_photos_are_turned_and_16_bits_kept(tmp_path):
    from mmpaca_runtime.images import to_array

    picture = np.zeros((4, 6, 3), np.uint8)
    picture[0, 0] = 200
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise
    Image.fromarray(picture).save(tmp_path / 'turned.png', exif=exif)
    turned = to_array(tmp_path / 'turned.png')
    assert turned.shape == (6, 4, 3) and turned[0, 3].tolist() == [200] * 3
    Image.fromarray(np.full((2, 2), 0x1234, np.uint16)).save(tmp_path / 'deep.png')
    assert np.unique(to_array(tmp_path / 'deep.png')).tolist() == [0x12]


def test_masks_are_pasted_as_in_mmdet():
    import torch
    from mmdet.models.roi_heads.mask_heads.fcn_mask_head import _do_paste_mask
    from mmpaca_runtime.result import paste_masks

    rng = np.random.default_rng(0)
    height, width = 73, 91
    boxes = rng.uniform(-10, 100, (60, 2, 2)).clip(0, (width, height))
    boxes = np.sort(boxes, 1).reshape(-1, 4).astype(np.float32)
    boxes[:4] = [[3, 4, 3, 9], [3.5, 4, 3.5, 9], [5, 5, 5, 5], [0, 0, width, height]]  # no area
    masks = rng.random((60, 28, 28), np.float32)
    given = paste_masks(masks, boxes, height, width, 0.5)
    expected = np.zeros_like(given)
    for k, (mask, box) in enumerate(zip(masks, boxes, strict=True)):
        mask, box = torch.from_numpy(mask)[None, None], torch.from_numpy(box)[None]
        part, where = _do_paste_mask(mask, box, height, width, skip_empty=True)
        expected[k][where] = (part[0] >= 0.5).numpy()
    assert expected.sum() > 20_000
    assert (given != expected).sum() <= 1  # a probability may round to the threshold


def test_coco_annotations(model):
    from mmpaca_runtime.result import encode_mask
    from pycocotools import mask as coco

    found = Detector(model, threads=1)(WHITE)
    first, second = found.to_coco(7)
    assert first['image_id'] == 7 and (first['category_id'], second['category_id']) == (2, 1)
    assert first['bbox'] == [2, 3, 10, 10] and first['area'] == 24
    rng = np.random.default_rng(0)
    masks = [
        *found.masks,
        np.ones((3, 4), bool),
        np.zeros((3, 4), bool),
        rng.random((90, 70)) > 0.5,
    ]
    for mask in masks:
        expected = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
        encoded = encode_mask(mask)
        assert encoded == dict(size=expected['size'], counts=expected['counts'].decode())


def test_pictures():
    image = np.full((100, 100, 3), 255, np.uint8)
    boxes = np.array([[20, 40, 60, 80], [70, 40, 90, 80]], np.float32)
    masks = np.zeros((2, 100, 100), bool)
    masks[:, 50:70, 30:50] = True
    labels = np.array([1, 0])
    found = Result(image, boxes, np.array([0.9, 0.4]), labels, masks, ['cat', 'dog'])
    drawn = np.asarray(found.draw(score_thr=0.5))
    # Half white, half the colour of the second class; the weaker detection is not drawn.
    assert drawn[60, 40].tolist() == [127 + 60 // 2, 127 + 180 // 2, 127 + 75 // 2]
    assert drawn[60, 20].tolist() == [60, 180, 75] and drawn[60, 25].tolist() == [255] * 3
    assert (drawn[:, 70:] == 255).all() and (image == 255).all()


def test_masks_of_the_image_and_classes(tmp_path):
    masks = np.zeros((3, 16, 24), bool)
    masks[0, 4:7] = True
    outputs = dict(boxes=BOXES, scores=np.array([0.9, 0.4, 0], np.float32), masks=masks)
    outputs['labels'] = np.array([1, 0, -1])
    path = write_model(tmp_path / 'rtmdet.onnx', outputs, mask_type='image')
    np.testing.assert_array_equal(Detector(path, threads=1)(WHITE).masks, masks[:2])

    scores = dict(scores=np.array([0.1, 0.7, 0.2], np.float32))
    classes = '["a", "b", "c"]'
    path = write_model(tmp_path / 'c.onnx', scores, task='classification', classes=classes)
    found = Detector(path, threads=1)(WHITE, score_thr=0.15)
    assert found.names == ['b', 'c'] and found.boxes is None
    assert [entry['category_id'] for entry in found.to_coco(1)] == [2, 3]
    assert (np.asarray(found.draw()) != WHITE).any()


def test_label_maps(tmp_path):
    label_map = np.zeros((16, 24), np.uint8)
    label_map[:4, :6], label_map[4:6] = 2, 1
    path = tmp_path / 'segmentor.onnx'
    write_model(path, dict(label_map=label_map), task='segmentation', classes='["a", "b", "c"]')
    found = Detector(path, threads=1)(WHITE, score_thr=0.5)
    np.testing.assert_array_equal(found.label_map, label_map)
    assert found.names == ['a', 'b', 'c'] and found.boxes is None
    np.testing.assert_allclose(found.scores, [312 / 384, 48 / 384, 24 / 384])
    np.testing.assert_array_equal(found.masks[1], label_map == 1)
    assert [entry['area'] for entry in found.to_coco(1)] == [312, 48, 24]
    drawn = np.asarray(found.draw(score_thr=0.5))  # below the names, half in each class's colour
    assert drawn[15, 23].tolist() == [127 + 230 // 2, 127 + 25 // 2, 127 + 75 // 2]
    assert drawn[3, 0].tolist() == [127 + 0 // 2, 127 + 130 // 2, 127 + 200 // 2]


def external(model: onnx.ModelProto) -> bytes:
    weight = model.graph.initializer[0]
    weight.ClearField('raw_data')
    weight.data_location = onnx.TensorProto.EXTERNAL
    weight.external_data.add(key='location', value='../../etc/passwd')
    return model.SerializeToString()


def foreign_operator(model: onnx.ModelProto) -> bytes:
    model.graph.node[0].domain = 'com.example'
    model.opset_import.add(domain='com.example', version=1)
    return model.SerializeToString()


def other_input(model: onnx.ModelProto) -> bytes:
    model.graph.input[0].type.tensor_type.shape.dim.add().dim_value = 1
    return model.SerializeToString()


@pytest.mark.parametrize(
    ('content', 'error'),
    [
        (b'', 'cannot load it'),
        (b'not an ONNX file' * 100, 'cannot load it'),
        (make_model(format=None), 'not written by `mmpaca export`'),
        (make_model(format='2'), "format '2', this mmpaca-runtime reads '1'; upgrade it"),
        (make_model(task='pose'), "task 'pose' is not covered, only detection, instance"),
        (make_model(classes='cat'), 'mmpaca.classes is missing or invalid'),
        (make_model(classes='[' * 100_000), 'mmpaca.classes is missing or invalid'),
        (make_model(mask_thr=None), 'mmpaca.mask_thr is missing or invalid'),
        (make_model({'scores': MASKS}), 'outputs are not those of the task instance'),
        (make_model(mask_type='image'), "mask_type 'image' does not fit the masks"),
        (make_model(task='segmentation'), 'outputs are not those of the task segmentation'),
        (make_model().SerializeToString()[:-300], '(cannot load it|not written by)'),
        (external(make_model()), 'refers to weights in other files'),
        (foreign_operator(make_model()), 'cannot load it'),
        (other_input(make_model()), '(cannot load it|inputs or outputs)'),
    ],
    ids=range(15),
)
def test_other_files_are_refused_in_one_sentence(content, error, tmp_path):
    path = tmp_path / 'file.onnx'
    path.write_bytes(content if isinstance(content, bytes) else content.SerializeToString())
    with pytest.raises(ModelError, match=error) as raised:
        Detector(path, threads=1)
    text = str(raised.value)
    assert text.startswith(str(path)) and '\n' not in text and len(text) < len(str(path)) + 300


@pytest.mark.parametrize(
    ('changes', 'error'),
    [
        (dict(boxes=BOXES[:2]), r'boxes has the shape \(1, 2, 4\)'),
        (dict(boxes=BOXES * np.nan), 'boxes are not finite, or far from any image'),
        (dict(masks=MASKS[..., 0]), r'masks has the shape \(1, 3, 4\)'),
    ],
    ids=range(3),
)
def test_outputs_of_another_shape(changes, error, tmp_path):
    detector = Detector(write_model(tmp_path / 'a.onnx', {**OUTPUTS, **changes}), threads=1)
    with pytest.raises(ModelError, match=error):
        detector(WHITE)


def test_too_large_a_file_is_not_read(tmp_path):
    path = tmp_path / 'large.onnx'
    with path.open('wb') as file:
        file.truncate(2**31)  # takes no space
    with pytest.raises(ModelError, match='at most 2 GB'):
        Detector(path)


def test_unusable_images_and_devices(model, tmp_path):
    detector = Detector(model, threads=1)
    for image in (np.zeros((4, 4, 3)), np.zeros((4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(ValueError, match=r'an image is \(H, W, 3\) uint8 RGB'):
            detector(image)
    with pytest.raises(ValueError, match='F image of .*: 8 or 16 bits are read'):
        detector(Image.new('F', (4, 4)))
    (tmp_path / 'a.png').write_text('no image')
    with pytest.raises(ValueError, match='a.png: not an image'):
        detector(tmp_path / 'a.png')
    with pytest.raises(ModelError, match="device 'tpu' is not available in this onnxruntime, only"):
        Detector(model, device='tpu')


def test_the_package_is_small():
    lines = 0
    for path in (ROOT / 'runtime').rglob('*.py'):
        tree = ast.parse(path.read_text())
        docs = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                docs |= set(range(node.lineno, node.end_lineno + 1))
        code = [
            line.strip() for n, line in enumerate(path.read_text().splitlines(), 1) if n not in docs
        ]
        lines += sum(bool(line) and not line.startswith('#') for line in code)
    assert 200 < lines < 400
