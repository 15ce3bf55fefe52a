"""Predictions, clusters and pages of segmentors: the head's clusters are the classes."""

import json
import re

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import MODELS, DefaultScope
from PIL import Image
from segmentation import DIMS, HEIGHT, WIDTH, tiny_config, write_camvid

from mmpaca.__main__ import main
from mmpaca.apis.inference import Predictor
from mmpaca.evaluation import ClusterAlignmentMetric
from mmpaca.explain import record
from mmpaca.explain.page_data import scene_data
from mmpaca.explain.scene import Scene
from mmpaca.explain.sheets import all_sheets
from mmpaca.models import PaCaSegHead

pytest.importorskip('mmseg')
CLASSES = ('sky', 'building', 'pole', 'road', 'pavement', 'tree', 'sign', 'fence', 'car',
           'pedestrian', 'bicyclist')  # fmt: skip


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    """Data, config file and checkpoint of a segmentor that sees several classes."""
    folder = tmp_path_factory.mktemp('segmentor')
    cfg = tiny_config(write_camvid(folder / 'data'), folder)
    cfg.dump(folder / 'tiny.py')
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmseg'):
        weights = MODELS.build(cfg.model).state_dict()
    weights['decode_head.conv_seg.weight'] *= 20  # so that the input decides
    weights['decode_head.clustering.1.weight'] *= 20
    torch.save(dict(state_dict=weights), folder / 'model.pth')  # no class names: the config's
    return folder


@pytest.fixture(scope='module')
def predictor(model):
    return Predictor(Config.fromfile(model / 'tiny.py'), model / 'model.pth', 'cpu')


def test_predict(model, tmp_path, monkeypatch, capsys):
    """The same as mmseg's own API, for images of two sizes in a batch."""
    from mmseg.apis import inference_model, init_model

    small = Image.open(model / 'data/images/val/0.jpg').crop((0, 0, 40, 32))
    small.save(tmp_path / 'small.jpg')
    images = [model / 'data/images/val/1.jpg', tmp_path / 'small.jpg']
    monkeypatch.chdir(tmp_path)
    arguments = [model / 'tiny.py', model / 'model.pth', *images, '--batch-size', 2]
    assert main(['predict', *map(str, arguments), '--device', 'cpu']) == 0
    theirs = init_model(str(model / 'tiny.py'), None, device='cpu')
    theirs.load_state_dict(torch.load(model / 'model.pth')['state_dict'])
    for path in images:
        found = json.loads((tmp_path / f'outputs/preds/{path.stem}.json').read_text())
        labels = np.array(Image.open(tmp_path / found['sem_seg_path']))
        expected = inference_model(theirs, str(path)).pred_sem_seg.data[0].numpy()
        np.testing.assert_array_equal(labels, expected)
        shares = {CLASSES[c]: (labels == c).mean() for c in np.unique(labels)}
        assert found['classes'] == pytest.approx(shares) and len(shares) > 1
        drawn = Image.open(tmp_path / f'outputs/vis/{path.stem}.jpg')
        assert drawn.width >= 480 and drawn.height > drawn.width * labels.shape[0] / labels.shape[1]
    assert not (tmp_path / 'outputs/predictions.coco.json').exists()


def test_a_picture_has_the_colours_of_the_palette(predictor, model):
    image, sample = predictor(model / 'data/images/val/1.jpg')
    drawn = predictor.draw(np.zeros_like(image), sample, 0.3)
    labels = sample.pred_sem_seg.data[0].numpy()
    palette = np.array(predictor._palette)
    scale = drawn.shape[1] // WIDTH
    centres = drawn[scale // 2 : HEIGHT * scale : scale, scale // 2 :: scale]
    np.testing.assert_allclose(centres, 0.6 * palette[labels], atol=1)


def test_what_is_recorded_is_what_the_head_computes():
    """Mixing the classes' values with the recorded attention gives the head's output."""
    torch.manual_seed(0)
    head = PaCaSegHead(DIMS, num_classes=7, channels=16).eval()
    maps = [torch.randn(2, c, 12 >> i, 16 >> i) for i, c in enumerate(DIMS)]
    with torch.no_grad():
        assignment, attention = head.assignment_and_attention(maps)
        x = head._fuse(maps)
        clusters = assignment.flatten(2) @ x.flatten(2).transpose(1, 2)
        out = attention.flatten(1, 2) @ head.v(clusters)
        logits = head.conv_seg(head.proj(out.transpose(1, 2).unflatten(2, (12, 16))))
        torch.testing.assert_close(logits, head(maps))
    assert assignment.shape == (2, 7, 12, 16) and attention.shape == (2, 12, 16, 7)
    torch.testing.assert_close(assignment.sum((2, 3)), torch.ones(2, 7))
    torch.testing.assert_close(attention.sum(-1), torch.ones(2, 12, 16))


@pytest.fixture(scope='module')
def scene(predictor, model):
    with record(predictor.model) as recording:
        image, sample = predictor(model / 'data/images/val/1.jpg')
    return Scene.from_sample(image, sample, recording, 0, predictor.classes), sample


def test_regions_of_classes(scene):
    scene, sample = scene
    labels = sample.pred_sem_seg.data[0].numpy()
    assert [block.title for block in scene.blocks] == ['stage1', 'stage2', 'stage3', 'head']
    assert {d.name for d in scene.detections} == {CLASSES[c] for c in np.unique(labels)}
    assert sum(d.mask.sum() for d in scene.detections) == HEIGHT * WIDTH
    first = scene.detections[0]
    probability = sample.seg_logits.data.softmax(0)[first.label].numpy()
    assert first.score == pytest.approx(probability[labels == first.label].mean(), abs=1e-5)
    head = scene.blocks[-1]
    assert head.stride == 4 and head.assignment.shape == (1, 11, HEIGHT // 4, WIDTH // 4)
    assert scene.cluster_names(head) == list(CLASSES)
    assert scene.cluster_names(scene.blocks[0])[:2] == ['cluster 1', 'cluster 2']
    # Where the class took its content from: its attention to the classes, and their patches.
    weights = torch.from_numpy(scene.coverage(head, first))
    row = (weights[..., None] * head.attention[0, 0]).sum((0, 1)) / weights.sum()
    expected = (row[:, None, None] * head.assignment[0]).sum(0)
    np.testing.assert_allclose(scene.relevance(head, first), expected, rtol=1e-4, atol=1e-7)
    assert [b.title for b in scene.only_stages([2]).blocks] == ['stage2', 'head']


def test_page_and_pictures(scene):
    scene, sample = scene
    data = scene_data('a.jpg', scene, 48)
    head = data['blocks'][-1]
    assert data['segmented'] and head['isHead']
    assert head['names'] == list(CLASSES) and head['clusters'] == 11
    # The prediction of each patch is the class of most of its pixels.
    names = [scene.detections[i].name for i in head['predicted']]
    patches = sample.pred_sem_seg.data[0].unfold(0, 4, 4).unfold(1, 4, 4).flatten(2)
    for name, patch in zip(names, patches.flatten(0, 1), strict=True):
        counts = patch.bincount(minlength=11)
        assert counts[CLASSES.index(name)] == counts.max()
    sheets = dict(all_sheets(scene))
    assert list(sheets) == [
        'stage1_block2',
        'stage2_block1',
        'stage3_block1',
        'head',
        'looked_at_1',
    ]


def test_clusters_command(model, tmp_path, capsys):
    arguments = [model / 'tiny.py', model / 'model.pth', model / 'data/images/val/1.jpg']
    assert (
        main(['clusters', *map(str, arguments), '--out-dir', str(tmp_path), '--device', 'cpu']) == 0
    )
    assert (tmp_path / '001_1/head.jpg').is_file()
    page = (tmp_path / 'index.html').read_text()
    data = json.loads(re.search('data-name="1.jpg".*?>(.*?)</script>', page)[1])
    assert data['segmented'] and data['decided']['count'] == len(data['detections']) > 1


def test_alignment_with_label_maps(predictor, model):
    """Void pixels count nowhere; a class is one instance."""
    metric = ClusterAlignmentMetric()
    labels = np.array(Image.open(model / 'data/labels/val/1.png')).astype(np.int64)
    labels[labels == 11] = 255
    image = np.array(Image.open(model / 'data/images/val/1.jpg'))[..., ::-1]
    with record(predictor.model, attention='none') as recording:
        metric.recording = recording
        (batch,) = predictor._inferencer.preprocess([image], 1)
        (sample,) = predictor._inferencer.forward(batch)
        given = dict(sample.to_dict(), gt_sem_seg=dict(data=torch.from_numpy(labels[None])))
        metric.process(pseudo_collate([{}]), [dict(given, img_path='1.jpg')])
    metrics = metric.compute_metrics(metric.results)
    head = recording.last_blocks()[-1].labels()[0].numpy()
    of_patches = labels[::4, ::4]  # blocks of 8 pixels
    ious = [
        max(((head == k) & (of_patches == c))[of_patches < 255].sum()
            / ((head == k) | (of_patches == c))[of_patches < 255].sum() for k in np.unique(head))
        for c in np.unique(labels) if c != 255
    ]  # fmt: skip
    assert metrics['head_iou'] == pytest.approx(np.mean(ious))
    assert 1 <= metrics['head_in_use'] <= 11 and metrics['stage1_mi_bits'] > 0
