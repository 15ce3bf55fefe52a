"""The graphs of tensors compute what mmdet's and mmpretrain's predict computes."""

import numpy as np
import pytest
import torch
from detectors import (
    DETECTORS,
    PACA,
    RESNET,
    SWIN,
    build,
    detector_config,
    pictures,
    predict,
)
from mmdet.models import RetinaHead
from mmengine.registry import MODELS, DefaultScope

from mmpaca.apis.verification import detections, paste
from mmpaca.deploy import build_graph
from mmpaca.deploy.agreement import TOLERANCES, Agreement, Detections, compare
from mmpaca.deploy.onnx_file import trace

TEACHER = dict(
    PACA, arch=dict(PACA['arch'], teacher_depths=(1, 1, 1, 1)), num_clusters=(6, 6, 4, 4)
)
OTHER = dict(
    PACA, num_clusters=4, clustering='mlp', cluster_interval=1, sub_norm=True, post_norm=True
)
CASES = [(name, PACA) for name in DETECTORS]
CASES += [('retinanet', RESNET), ('dino', RESNET), ('mask_rcnn', SWIN), ('atss', SWIN)]
CASES += [('mask_rcnn', TEACHER), ('faster_rcnn', OTHER)]
SCALE = 1.5  # of the images before resizing


def compared(model, run, sizes) -> Agreement:
    """mmdet beside a function of images and scale that returns outputs by name."""
    total = Agreement()
    for batch, height, width in sizes:
        images = pictures(batch, height, width)
        outputs = run(images, torch.full((4,), SCALE))
        if hasattr(model.bbox_head if hasattr(model, 'bbox_head') else None, 'mask_head'):
            del outputs['masks']  # RTMDet-Ins: logits, which the file turns into masks
        size = round(height * SCALE), round(width * SCALE)
        for expected, given in zip(
            predict(model, images, SCALE), detections(outputs, model, size), strict=True
        ):
            masks = None if given.masks is None else expected.masks
            found = Detections(expected.bboxes, expected.scores, expected.labels, masks)
            most = outputs['scores'].shape[1]
            total += compare(found, given, TOLERANCES['fp32'], most, 0.05)
    return total


@pytest.mark.parametrize(
    ('name', 'backbone'),
    CASES,
    ids=[f'{name}-{b["type"]}-{i}' for i, (name, b) in enumerate(CASES)],
)
def test_detector(name, backbone):
    model = build(detector_config(name, backbone))
    graph = build_graph(model)

    def run(images, scale):
        with torch.no_grad():
            outputs = graph(images, scale)
        return dict(zip(graph.outputs, (out.numpy() for out in outputs), strict=True))

    sizes = (
        [(1, 96, 128), (2, 64, 96)] if name.startswith('rtmdet') else [(1, 100, 130), (2, 61, 96)]
    )
    total = compared(model, run, sizes)
    assert total.unmatched == 0 and total.detections > 50
    assert total.box_error < 1e-3 and total.score_error < 1e-5
    if 'mask_rcnn' in name:
        assert total.mask_pixels > 1000 and total.mask_errors <= total.mask_pixels / 1000


def test_rows_without_a_detection():
    model = build(detector_config('retinanet'))
    model.test_cfg.score_thr = 0.6
    outputs = build_graph(model)(pictures(1, 96, 96), torch.ones(4))
    boxes, scores, labels = (out[0] for out in outputs)
    found = int((labels >= 0).sum())
    assert 0 < found < 100 and len(scores) == 100
    assert scores[:found].min() > 0.6 and (scores[:-1] >= scores[1:]).all()
    assert not scores[found:].any() and not boxes[found:].any() and (labels[found:] == -1).all()


@pytest.mark.parametrize('wide', [True, False])
def test_classifier(wide):
    import mmpretrain.models  # noqa: F401

    cfg = dict(
        type='ImageClassifier',
        backbone=dict(PACA, out_indices=(3,)),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=5, in_channels=8),
        data_preprocessor=dict(mean=[100.0, 110, 120], std=[50.0, 60, 70], to_rgb=wide),
    )
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(cfg).eval()
        images = pictures(2, 64, 96)
        data = dict(inputs=list(images.flip(1).to(torch.uint8)))
        expected = torch.stack([sample.pred_score for sample in model.test_step(data)])
    (scores,) = build_graph(model)(images, torch.ones(4))
    assert scores.shape == (2, 5) and torch.allclose(scores, expected, atol=1e-6)


class OtherHead(RetinaHead):
    """Predicts in a way of its own."""

    def predict_by_feat(self, *args, **kwargs):
        return super().predict_by_feat(*args, **kwargs)


def test_what_is_not_covered_is_named():
    model = build(detector_config('retinanet'))
    model.test_cfg.nms = dict(type='soft_nms', iou_threshold=0.5)
    with pytest.raises(
        ValueError, match=r"model.test_cfg.nms=\{'type': 'soft_nms'.* only type='nms'"
    ):
        build_graph(model)
    model.bbox_head.__class__ = OtherHead
    with pytest.raises(
        ValueError, match='bbox_head OtherHead is not exported; covered are: Retina'
    ):
        build_graph(model)
    model = build(detector_config('dino'))
    model.data_preprocessor.pad_size_divisor = 32
    with pytest.raises(ValueError, match='DINO is exported with pad_size_divisor=1'):
        build_graph(model)


def test_the_model_itself_is_not_changed():
    model = build(detector_config('mask_rcnn'))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    build_graph(model)
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_paste():
    mask = np.zeros((1, 4, 4), np.float32)
    mask[0, :, :2] = 1  # the left half
    (full,) = paste(mask, np.array([[2, 1, 10, 5]], np.float32), (8, 12), 0.5)
    expected = np.zeros((8, 12), bool)
    expected[1:5, 2:6] = True
    assert (full == expected).all()


class FixedBatch(torch.nn.Module):
    """Takes the batch size as a number, as mmdet's SwinTransformer does before make_traceable."""

    def forward(self, image, scale):
        return image.flatten(1).view(int(image.shape[0]), -1) * scale[0]


@pytest.mark.parametrize(
    ('size', 'free'), [((32, 48), 'free batch'), (None, 'free batch, height and width')]
)
def test_what_cannot_be_traced_is_one_sentence(size, free):
    with pytest.raises(ValueError, match=rf'cannot trace this model with {free}: Constraints viol'):
        trace(FixedBatch(), size)
