"""Relevance of detections: logits are the model's own, flow is exact where it can be computed."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS as ROOT
from mmengine.registry import DefaultScope
from test_recorder import VARIANTS, build

from mmpaca.apis.configs import find_config
from mmpaca.apis.inference import Predictor
from mmpaca.explain import METHODS, attribute, contrast
from mmpaca.explain.perturbation import deletion_insertion, drise, random_masks
from mmpaca.explain.relevance import relevance, through_attention
from mmpaca.explain.scene import Detection, read_detections
from mmpaca.explain.subject import Subject
from mmpaca.explain.trace import BlockTrace, trace

IMAGE = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)


@pytest.fixture(scope='module')
def detector(root, demo_weights) -> Predictor:
    config = Config.fromfile(root / 'configs/demo/mask-rcnn_paca-demo_shapes.py')
    return Predictor(config, demo_weights, 'cpu')


@pytest.fixture(scope='module')
def found(detector) -> list[Detection]:
    (sample,) = detector.predict([IMAGE[..., ::-1]])
    return read_detections(sample, IMAGE.shape[:2], None, 0.3)[:2]


def hand_made(x, branch) -> BlockTrace:
    """Two patches with one channel, two clusters."""
    return BlockTrace(
        x=torch.tensor(x).view(1, 1, 2, 1),
        branch=torch.tensor(branch).view(1, 1, 2, 1),
        q=torch.zeros(1, 2, 1),
        k=torch.zeros(1, 2, 1),
        v=torch.tensor([[[1.0], [-1.0]]]),
        attended=torch.zeros(1, 2, 1),
        assignment=torch.tensor([[[0.25, 0.75], [0.5, 0.5]]]),
        num_heads=1,
    )


def test_flow_of_a_hand_made_block():
    block, reference = hand_made([2.0, 3.0], [5.0, 1.0]), hand_made([1.0, 1.0], [4.0, 1.0])
    ones = torch.ones(1, 1, 2, 1)
    flow = through_attention(torch.tensor([[[8.0, 4.0]]]), block, reference, ones, ones[:, 0])
    # Patch 1: x and branch differ from the reference by 1 each, so 4 stay and 4 go on, by halves
    # for cluster 1 and against cluster 2. Patch 2 keeps all: its branch is the reference's. Of
    # cluster 1 patch 1 has 0.25 less than a half, patch 2 has more; cluster 2 is everywhere.
    assert flow.tolist() == [[[4 - 2 * 0.25, 4 + 2 * 0.25]]]


@pytest.mark.parametrize('variant', VARIANTS)
def test_relevance_of_a_model(variant):
    """Without attention the sum is kept down to the pixels; with it some of it is nowhere."""
    model = build(variant).double()
    image = torch.rand(1, 3, 70, 97, dtype=torch.float64)
    with torch.no_grad(), trace(model) as reference:
        model(image.mean((2, 3), keepdim=True).expand_as(image))
    with trace(model) as traced:
        outs = model(image)
    scores = [out.square().mean() for out in outs]
    local = relevance(traced, reference, scores, (70, 97), attention=False)
    for i, heat in enumerate(local):
        out, other = traced.outputs[i].detach(), reference.outputs[i]
        started = ((out - other) * 2 * out / out.numel()).sum(1).clamp(min=0).sum()
        assert heat.sum().item() == pytest.approx(started.item())
    maps = relevance(traced, reference, scores, (70, 97))
    assert maps.shape == (4, 70, 97) and (maps >= 0).all()
    for heat, before in zip(maps, local, strict=True):
        assert not torch.allclose(heat, before)
        assert 0 < heat.sum() < 1.5 * before.sum()
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(model(image), outs, strict=True))


def subject_of(config: str, size: tuple[int, int], **changes) -> Subject:
    """A small model with random weights, as a config builds it."""
    cfg = Config.fromfile(find_config(config))
    cfg.merge_from_dict(changes)
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = ROOT.build(cfg.model).eval()
    if hasattr(model, 'level_embed'):  # DINO leaves it to init_weights: any memory, even NaN
        torch.nn.init.normal_(model.level_embed)
    for step in cfg.test_dataloader.dataset.pipeline:
        if step.type == 'Resize':
            step.scale = size
    model.cfg = cfg
    return Subject(model, IMAGE)


DENSE = {
    'retinanet_paca': dict(),
    'configs/paca_vit/atss_paca-t_1x_coco.py': dict(),
    'configs/paca_vit/dino-4scale_paca-t_8xb2-12e_coco.py': {
        'model.num_queries': 40,
        'model.test_cfg.max_per_img': 40,
        'model.encoder.num_layers': 1,
    },
}


@pytest.mark.parametrize('config', DENSE)
def test_logit_is_that_of_the_prediction(config):
    """The prior or query of a detection is found again, with the score that was predicted."""
    arch = dict(
        _delete_=True,
        embed_dims=(16, 32, 32, 32),
        num_heads=(1, 2, 2, 2),
        mlp_ratios=(1,) * 4,
        depths=(1,) * 4,
    )
    changes = {
        'model.backbone.arch': arch,
        'model.backbone.num_clusters': (7, 7, 5, 0),
        'model.neck.in_channels': [32] * 3 if 'dino' in config else [16, 32, 32, 32],
        'model.test_cfg.score_thr': 0.0,
        'model.bbox_head.num_classes': 3,
        **DENSE[config],
    }
    subject = subject_of(config, (128, 96), **changes)
    found = subject._predict(subject.inputs)[0][:3]
    detections = [
        Detection('', score.item(), tuple(box.tolist()), None, int(label))
        for box, score, label in zip(found.bboxes, found.scores, found.labels, strict=True)
    ]
    with torch.no_grad():
        logits = subject.logits(subject.inputs, detections)
    predicted = [d.score for d in detections]
    if 'atss' in config:  # predicts the class score times a centreness, which is no class logit
        assert (logits.sigmoid().numpy() >= predicted).all()
    else:
        assert logits.sigmoid().tolist() == pytest.approx(predicted, abs=1e-5)
    maps = attribute(subject.model, IMAGE, detections)
    assert maps.shape == (3, 60, 80) and maps.min() >= 0 and (maps.sum((1, 2)) > 0).all()


def test_classifier():
    """Logit and score are those of its prediction; relevance ends where the crop does."""
    pytest.importorskip('mmpretrain')
    arch = dict(
        embed_dims=(8,) * 4, num_heads=(1,) * 4, mlp_ratios=(1,) * 4, depths=(1,) * 4
    )  # fmt: skip
    steps = [
        dict(type='LoadImageFromFile'),
        dict(type='ResizeEdge', scale=64, edge='short'),
        dict(type='CenterCrop', crop_size=64),
        dict(type='PackInputs'),
    ]
    model = dict(
        type='ImageClassifier',
        data_preprocessor=dict(mean=[0.0] * 3, std=[255.0] * 3),
        backbone=dict(type='PaCaViT', arch=arch, num_clusters=4, out_indices=(3,)),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=10, in_channels=8),
    )
    data = dict(dataset=dict(type='CIFAR10', pipeline=steps))
    cfg = Config(dict(default_scope='mmpretrain', model=model, test_dataloader=data))
    predictor = Predictor(cfg, None, 'cpu')
    (sample,) = predictor.predict([IMAGE[..., ::-1]])
    (detection,) = read_detections(sample, (60, 80), None, 0)
    subject = Subject(predictor.model, IMAGE)
    assert subject.scores(subject.inputs, [detection])[0] == pytest.approx(detection.score, 1e-5)
    heat = attribute(predictor.model, IMAGE, [replace(detection, label=i) for i in range(10)])
    # 80 columns become 85, of which 10 to 73 are seen: columns 9 to 69.
    assert heat[..., :9].sum() == heat[..., 70:].sum() == 0 and heat[..., 9:70].sum() > 0


def test_segmentor(tmp_path):
    """The logit of a region is the mean of its patches' log-odds."""
    pytest.importorskip('mmseg')
    from segmentation import tiny_config

    torch.manual_seed(0)
    predictor = Predictor(tiny_config(tmp_path, tmp_path), None, 'cpu')
    mask = np.zeros((60, 80), bool)
    mask[8:24, 16:40] = True
    detection = Detection('', 1.0, (16, 8, 40, 24), mask, 3)
    subject = Subject(predictor.model, IMAGE)
    with torch.no_grad():
        logits = predictor.model(subject.inputs, [subject.sample], mode='tensor')[0]
        (found,) = subject.logits(subject.inputs, [detection])
    odds = logits.softmax(0)[3].logit()
    stride = round(subject.inputs.shape[2] / logits.shape[1])
    covered = np.nan_to_num(subject.geometry.to_map(mask, stride, tuple(logits.shape[1:])))
    assert float(found) == pytest.approx(np.average(odds, weights=covered), abs=1e-4)
    assert attribute(predictor.model, IMAGE, [detection]).sum() > 0


def test_logit_of_a_box(detector, found):
    """The box head's softmax at the box itself, as log-odds."""
    subject = Subject(detector.model, IMAGE)
    with torch.no_grad():
        logits = subject.logits(subject.inputs, found)
        feats = detector.model.extract_feat(subject.inputs)
        scale = subject.geometry.resized_shape[0] / 60
        rois = torch.tensor([[0, *(v * scale for v in d.box)] for d in found])
        out = detector.model.roi_head._bbox_forward(feats, rois)['cls_score'].softmax(1)
    for logit, p, detection in zip(logits, out, found, strict=True):
        expected = math.log(p[detection.label] / (1 - p[detection.label]))
        assert float(logit) == pytest.approx(expected, abs=1e-4)


def test_scores_of_the_image_itself(detector, found):
    """D-RISE's score of an unchanged image is the prediction's; curves begin and end there."""
    subject = Subject(detector.model, IMAGE)
    predicted = [d.score for d in found]
    assert subject.scores(subject.inputs, found)[0] == pytest.approx(predicted, abs=1e-5)
    heat = np.arange(60 * 80.0).reshape(60, 80)
    deletion, insertion = deletion_insertion(subject, heat, found[0], steps=2)
    assert deletion[0] == pytest.approx(predicted[0], abs=1e-4)
    assert insertion[-1] == pytest.approx(predicted[0], abs=1e-4)
    assert deletion.shape == (3,) and deletion[-1] < deletion[0]


def test_random_masks():
    generator = torch.Generator().manual_seed(1)
    masks = random_masks(200, 8, (60, 96), generator)
    assert masks.shape == (200, 60, 96) and masks.min() == 0 and masks.max() == 1
    assert float(masks.mean()) == pytest.approx(0.5, abs=0.02)
    # Wherever they are, masks show half: no place is favoured.
    assert float((masks.mean(0) - 0.5).abs().max()) < 0.15


@pytest.mark.parametrize('method', [m for m in METHODS if m != 'd_rise'])
def test_methods(detector, found, method):
    if method in ('grad_cam', 'hires_cam', 'gradient'):
        pytest.importorskip('captum')
    maps = attribute(detector.model, IMAGE, found, method)
    assert maps.shape == (2, 60, 80) and maps.dtype == np.float32
    assert np.isfinite(maps).all() and maps.min() >= 0
    assert (maps.max((1, 2)) > maps.min((1, 2))).all()
    same = method in ('random', 'eigen_cam')
    assert np.array_equal(maps[0], maps[1]) == (method == 'eigen_cam') or same


def test_drise_is_the_weighted_mean_of_masks(detector, found):
    subject = Subject(detector.model, IMAGE)
    heat = drise(subject, found, masks=6, cells=4)
    masks = random_masks(6, 4, tuple(subject.inputs.shape[2:]), torch.Generator().manual_seed(0))
    grey = subject.inputs[..., :72, :].mean((2, 3), keepdim=True)  # 60 x 80 becomes 72 x 96
    shown = grey + (subject.inputs - grey) * masks[:, None]
    weights = torch.from_numpy(subject.scores(shown, found)).float()
    expected = (weights.T @ masks.flatten(1)).unflatten(1, masks.shape[1:]) / 3
    assert torch.allclose(heat, expected, atol=1e-5)


def test_contrast():
    maps = np.array([[[3.0, 1.0]], [[1.0, 3.0]]], np.float32)
    assert contrast(maps).tolist() == [[[0.25, 0]], [[0, 0.25]]]
    assert contrast(maps, maps[1]).tolist() == [[[0.5, 0]], [[0, 0]]]


def test_bad_arguments(detector):
    with pytest.raises(
        ValueError, match="method='best' is unknown, choose one of paca, paca_flow, d_rise"
    ):
        attribute(detector.model, IMAGE, [], 'best')
    with pytest.raises(ValueError, match=r'image is float64 of shape \(60, 80\); give'):
        attribute(detector.model, np.zeros((60, 80)), [])
    with pytest.raises(ValueError, match='Linear has no cfg'):
        attribute(torch.nn.Linear(1, 1), IMAGE, [])
    assert attribute(detector.model, IMAGE, []).shape == (0, 60, 80)
