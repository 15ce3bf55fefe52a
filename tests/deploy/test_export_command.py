"""`mmpaca export` writes files that agree with PyTorch, and no others."""

import json

import numpy as np
import onnx
import pytest
from detectors import CLASSES, CONV, build, detector_config, pictures, save
from mmengine.config import Config
from PIL import Image

from mmpaca.__main__ import main
from mmpaca.apis import deploy
from mmpaca.apis.inference import Predictor
from mmpaca.apis.verification import Comparison, detections, open_onnx, predict
from mmpaca.deploy import build_graph
from mmpaca.deploy.half import halve_weights
from mmpaca.deploy.metadata import describe_model
from mmpaca.deploy.pipeline import fixed_size, read_pipeline
from mmpaca.deploy.torch_file import complete


@pytest.fixture(scope='module')
def mask_rcnn(tmp_path_factory, shapes):
    """Config and checkpoint of a small Mask R-CNN for the generated shapes."""
    cfg = detector_config('mask_rcnn', CONV)
    model = cfg.model  # two levels in place of five: a third of the nodes
    model.backbone.out_indices = (0, 1)
    model.neck.update(in_channels=[8, 8], num_outs=2)
    model.rpn_head.anchor_generator.strides = [4, 8]
    model.roi_head.bbox_roi_extractor.featmap_strides = [4, 8]
    model.roi_head.mask_roi_extractor.featmap_strides = [4]
    model.test_cfg.rcnn.max_per_img = 40
    del cfg.test_evaluator['ann_file']  # --verify has its own
    return save(cfg, build(cfg), tmp_path_factory.mktemp('mask_rcnn'), shapes)


@pytest.fixture(scope='module')
def exported(mask_rcnn, shapes, tmp_path_factory):
    """Its file, written by the command, and what that printed."""
    import contextlib
    import io

    out = tmp_path_factory.mktemp('exported') / 'model.onnx'
    printed = io.StringIO()
    command = ['export', *map(str, mask_rcnn), str(out)]
    with contextlib.redirect_stdout(printed):
        assert main([*command, '--verify', str(shapes / 'annotations/val.json')]) == 0
    return out, printed.getvalue()


def test_report(exported):
    _, printed = exported
    rows = [line.split() for line in printed.splitlines() if line.endswith('%')]
    assert [row[0] for row in rows] == ['generated', 'one', *['batch'] * 5]
    assert all(int(row[-6]) > 20 and row[-5] == '0' and row[-1] == '0.00%' for row in rows)
    for kind in ('bbox', 'segm'):
        (line,) = (line for line in printed.splitlines() if line.startswith(f'coco/{kind}_mAP: '))
        ap = line.split()[2].rstrip(',')
        assert line.endswith(f'file {ap}')


def test_file(exported):
    path, _ = exported
    model = onnx.load(path)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [('', 20)]
    assert b'.py' not in path.read_bytes().replace(b'model.py', b'')  # no paths of the machine
    operators = {node.op_type for node in model.graph.node}
    assert {'NonMaxSuppression', 'RoiAlign'} <= operators
    assert {node.domain for node in model.graph.node} == {''} and not model.functions

    def dims(values):
        return {
            value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
            for value in values
        }

    assert dims(model.graph.input) == {'image': ['batch', 'height', 'width', 3]}
    assert dims(model.graph.output) == dict(
        boxes=['batch', 40, 4],
        scores=['batch', 40],
        labels=['batch', 40],
        masks=['batch', 40, 28, 28],
    )
    about = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(about['mmpaca.classes']) == list(CLASSES)
    assert json.loads(about['mmpaca.scale']) == [128, 96]
    assert json.loads(about['mmpaca.mean']) == [123.675, 116.28, 103.53]
    expected = dict(
        format='1',
        task='instance',
        score_thr='0.05',
        mask_thr='0.5',
        mask_type='box',
        channels='RGB',
    )
    assert {name: about[f'mmpaca.{name}'] for name in expected} == expected


def test_another_size_and_batch(mask_rcnn, exported):
    path, _ = exported
    predictor = Predictor(*mask_rcnn, 'cpu')
    images = pictures(3, 176, 232).permute(0, 2, 3, 1).numpy().astype(np.uint8)
    given = detections(open_onnx(path.read_bytes())(images), predictor.model, images.shape[1:3])
    for one, other in zip(predict(predictor, images), given, strict=True):
        assert len(one) == len(other) > 20 and np.array_equal(one.labels, other.labels)
        assert np.allclose(one.boxes, other.boxes, atol=1e-3)
        assert np.allclose(one.scores, other.scores, atol=1e-5)
        assert (one.masks != other.masks).mean() < 1e-4


def test_masks_of_the_image(tmp_path):
    """RTMDet-Ins: a fixed size of the network's input, and masks that are resized after it."""
    cfg = detector_config('rtmdet_ins', CONV)
    config = Config.fromfile(save(cfg, build(cfg), tmp_path)[0])
    options = deploy.ExportOptions(score_thr=0.1)
    predictor = deploy.open_model(config, str(tmp_path / 'model.pth'), options)
    graph, steps = (
        build_graph(predictor.model),
        read_pipeline(config.test_dataloader.dataset.pipeline),
    )
    assert fixed_size(steps) == (128, 128)
    run = complete(graph, graph.outputs, steps, deploy.find_postprocessing(predictor.model))
    images = pictures(2, 72, 200).permute(0, 2, 3, 1).numpy().astype(np.uint8)
    outputs = run(images)
    assert outputs['masks'].shape == (2, 100, 72, 200) and outputs['masks'].dtype == bool
    kept = outputs['labels'] >= 0
    assert outputs['scores'][kept].min() > 0.1 and not outputs['masks'][~kept].any()
    comparison = Comparison(predictor, run)
    comparison.add('', images)
    (found,) = comparison.rows.values()
    assert found.detections > 20 and found.unmatched == 0
    assert found.mask_pixels > 1000 and found.mask_errors <= found.mask_pixels / 10_000
    about = describe_model(predictor.model, 'rtmdet.py', CLASSES, 'instance', steps)
    assert (about['mmpaca.mask_type'], about['mmpaca.score_thr']) == ('image', '0.1')
    assert (about['mmpaca.channels'], about['mmpaca.scale']) == ('BGR', '[128, 128]')


def test_half_weights(mask_rcnn, exported):
    path, _ = exported
    model = onnx.load(path)
    large = [w for w in model.graph.initializer if w.data_type == onnx.TensorProto.FLOAT and np.prod(w.dims) >= 256]  # fmt: skip
    expected = sum(2 * np.prod(weight.dims) for weight in large)
    halve_weights(model)
    onnx.checker.check_model(model)
    content = model.SerializeToString()
    weights = [w for w in model.graph.initializer if w.data_type == onnx.TensorProto.FLOAT16]
    halved = sum(2 * np.prod(weight.dims) for weight in weights)
    assert halved == expected > 10_000
    # Each has a Cast, with three names.
    assert len(content) < path.stat().st_size - halved + 250 * len(weights)
    images = pictures(1, 96, 128).permute(0, 2, 3, 1).numpy().astype(np.uint8)
    scores = [open_onnx(c)(images)['scores'] for c in (path.read_bytes(), content)]
    assert 0 < np.abs(scores[0] - scores[1]).max() < 0.02


def test_a_wrong_file_is_not_written(mask_rcnn, exported, tmp_path, monkeypatch, capsys):
    content = exported[0].read_bytes()
    out = tmp_path / 'model.onnx'
    out.write_bytes(b'older')
    monkeypatch.setattr(deploy, 'write_model', lambda *args: content)

    def open_wrong(content):
        run = open_onnx(content)
        return lambda images: {k: v * 0.99 if k == 'scores' else v for k, v in run(images).items()}

    monkeypatch.setattr(deploy, 'open_onnx', open_wrong)
    assert main(['export', *map(str, mask_rcnn), str(out)]) == 1
    message = capsys.readouterr().err
    assert 'model.onnx is not written, it differs from PyTorch' in message
    assert 'PyTorch alone finds label' in message and out.read_bytes() == b'older'


def test_a_file_that_fails_is_not_written(mask_rcnn, exported, tmp_path, monkeypatch, capsys):
    model = onnx.load(exported[0])
    monkeypatch.setattr(deploy, 'write_model', lambda *args: fixed_size_file(model))
    out = tmp_path / 'model.onnx'
    assert main(['export', *map(str, mask_rcnn), str(out)]) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if 'not written' in line]
    assert 'it fails on images 1x' in line and 'Got invalid dimensions for input: image' in line
    assert not out.exists()


def fixed_size_file(model: onnx.ModelProto) -> bytes:
    """The file with an input of 7x7 pixels, which ONNX Runtime refuses to fill with another."""
    for side in model.graph.input[0].type.tensor_type.shape.dim[1:3]:
        side.dim_value = 7
    return model.SerializeToString()


@pytest.mark.parametrize(
    ('arguments', 'says'),
    [
        (
            ['folder'],
            'OUT folder: give a file that ends in .onnx (onnx), .xml (openvino), .pt2 (torch), or',
        ),
        (['a.onnx', '--format', 'openvino'], '--format openvino: OUT a.onnx must end in .xml'),
        (['a.pt2', '--precision', 'fp16'], '--format torch: the file has no --opset and --pre'),
        (['a.pt2', '--server', 'ovms'], '--server ovms: it reads OUT.onnx or OUT.xml, not a.pt2'),
        (['a.onnx', '--shape', '8'], '--shape and --device are for --backbone'),
        (['a.onnx', '--opset', '2'], '--opset 2 is invalid, give 7 to'),
        (['a.onnx', '--precision', 'int8'], '--precision int8 needs --calibration IMAGES'),
        (
            ['a.onnx', '--precision', 'int8', '--calibration', 'IMAGE'],
            '--precision int8 needs --verify ANN.json',
        ),
    ],
)
def test_options(mask_rcnn, capsys, tmp_path, arguments, says):
    if 'IMAGE' in arguments:
        Image.new('RGB', (8, 8)).save(tmp_path / 'a.png')
        arguments = [*arguments[:-1], str(tmp_path / 'a.png')]
    assert main(['export', *map(str, mask_rcnn), *arguments]) == 1
    assert capsys.readouterr().err.startswith(f'error: {says}')
