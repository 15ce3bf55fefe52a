"""What the pictures show, and the command that writes them, for detectors and classifiers."""

import json
import re
import shutil

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config

import mmpaca
from mmpaca.__main__ import main
from mmpaca.apis.inference import Predictor
from mmpaca.explain import record
from mmpaca.explain.pictures import PALETTE, cluster_colours, heat_map
from mmpaca.explain.scene import Scene
from mmpaca.explain.sheets import all_sheets, cluster_sheet, looked_at_sheet

CONFIG = 'mask-rcnn_paca-demo_shapes'
DEMO = f'configs/demo/{CONFIG}.py'


def test_segmentation_has_the_colours_of_the_strongest(scene):
    sheet = cluster_sheet(scene, scene.blocks[0], num_clusters=2)
    assert sheet.shape == (344, 3 * 427 + 2 * 4, 3)
    order = scene.blocks[0].received()[0].argsort(descending=True).tolist()
    for cluster, (y, x) in enumerate([(30, 5), (30, 420), (340, 5), (340, 420)]):
        expected = 0.35 * 100 + 0.65 * PALETTE[order.index(cluster)].astype(float)
        assert np.abs(sheet[y, x] - expected).max() <= 1
    # Then the strongest cluster's heat: all in its own quarter.
    heat = heat_map(scene.image, np.eye(60, 80))
    low, high = heat[0, 1], heat[0, 0]
    tile = sheet[24:, 431 : 431 + 427]
    assert (tile[310, 420] == high).all() and (tile[5, 5] == low).all()


def test_weak_clusters_are_grey():
    colours = cluster_colours([8, 1, 2, 3, 4, 5, 6, 0, 7])
    assert (colours[8] == PALETTE[0]).all() and (colours[6] == PALETTE[6]).all()
    assert np.ptp(colours[0]) == np.ptp(colours[7]) == 0 and colours[0, 0] != colours[7, 0]


def test_looked_at_is_the_mean_over_the_region(scene):
    cat, dog = scene.detections
    first = scene.blocks[0]
    looked = scene.relevance(first, cat)
    quarters = [looked[:8, :10], looked[:8, 10:], looked[8:, :10], looked[8:, 10:]]
    np.testing.assert_allclose([q.sum() for q in quarters], [0.375, 0.125, 0, 0.5], atol=1e-6)
    assert scene.coverage(first, cat).sum() == pytest.approx(30 * 20 / 16)
    # A detection of no pixel still has a patch.
    dog.mask[:] = False
    assert np.flatnonzero(scene.coverage(first, dog)).tolist() == [12 * 20 + 16]
    sheet = looked_at_sheet(scene, scene.detections)
    assert sheet.shape == (2 * 344, 3 * 427 + 2 * 4, 3)
    # What decided comes between the region and the stages, of the detections that have it.
    scene.attribution = np.ones((1, 60, 80), np.float32)
    wider = looked_at_sheet(scene, scene.detections)
    assert wider.shape[1] == 4 * 427 + 3 * 4 and (wider[344:, 3 * 427 + 3 * 4 :] == 255).all()
    flat = heat_map(scene.image, scene.attribution[0])
    assert (flat == flat[0, 0]).all()  # half of the scale, not its end
    np.testing.assert_allclose(flat[0, 0], 0.575 * 80 + 0.425 * np.array([124, 123, 120]), atol=3)
    assert [name for name, _ in all_sheets(scene)] == ['stage1_block2', 'stage3_block1', 'looked_at_1']  # fmt: skip
    with pytest.raises(ValueError, match=r'stages \[2\] have no clusters; those that have: \[1, 3\]'):  # fmt: skip
        scene.only_stages([1, 2])


def test_command(shapes, demo_weights, tmp_path, monkeypatch, capsys):
    """Files, folders and globs; sizes that are no multiple of 32; a page and pictures of each."""
    (tmp_path / 'folder').mkdir()
    for i, size in enumerate([(70, 50), (45, 90)]):
        cv2.imwrite(str(tmp_path / f'folder/{i}.png'), np.full((*size, 3), 90, np.uint8))
    (tmp_path / 'folder/notes.txt').write_text('no image')
    monkeypatch.chdir(tmp_path)
    files = (shapes / 'val/000001.png', 'folder', 'fold*/1.png')

    def command(*arguments: object, config: str = CONFIG) -> int:
        options = ('--stages', 2, '--all-blocks', '--device', 'cpu', *arguments)
        return main(['clusters', *map(str, (config, demo_weights, *files, *options))])

    assert command('--score-thr', 0.9) == 0
    assert 'clusters/index.html' in capsys.readouterr().out
    written = {
        str(p.relative_to(tmp_path / 'clusters')) for p in (tmp_path / 'clusters').rglob('*.*')
    }
    names = ('detections', 'stage2_block1', 'stage2_block2', 'looked_at_1')
    folders = ('001_000001', '002_0', '003_1', '004_1')
    written = {name for name in written if not re.search(r'looked_at_[2-9]', name)}  # by 25
    assert written >= {'index.html', *(f'{f}/{n}.jpg' for f in folders for n in names[:3])}
    assert written <= {'index.html', *(f'{f}/{n}.jpg' for f in folders for n in names)}
    assert (tmp_path / 'clusters/index.html').read_text().count('class="scene"') == 4

    assert command('--stages', 4) == 1
    assert 'error: stages [4] have no clusters' in capsys.readouterr().err
    assert command(config='no.py') == 1
    assert re.search('error: .*no.py', capsys.readouterr().err)


def test_page_function(root, shapes, demo_weights, tmp_path):
    image = shapes / 'val/000001.png'
    config = Config.fromfile(root / DEMO)
    config.model.test_cfg.rcnn.max_per_img = 3
    options = dict(device='cpu', score_thr=0.5, num_clusters=1)
    other = shutil.copy(demo_weights, tmp_path / 'other.pth')
    path = mmpaca.explain.page(
        image, config, demo_weights, tmp_path, compare=other, curves=1, **options
    )
    assert path == tmp_path / 'index.html'
    texts = re.findall('data-name="000001.png" .*?>(.*?)</script>', path.read_text())
    one, two = map(json.loads, texts)
    assert (one['model'], two['model']) == ('model.pth', 'other.pth')
    found = one['detections']
    assert found == two['detections'] and one['decided'] == two['decided']  # the same weights
    assert one['decided']['count'] == len(found) == 3
    # With no pixel removed or all of them shown, the score is the detection's own.
    deleted, inserted = found[0]['curves']
    assert len(deleted) == len(inserted) == 33
    assert deleted[0] == inserted[-1] == pytest.approx(found[0]['score'], abs=2e-3)
    assert not any(detection['curves'] for detection in found[1:])
    with pytest.raises(ValueError, match=r'compare=.*model\.pth is the checkpoint itself'):
        mmpaca.explain.page(image, config, demo_weights, tmp_path, compare=demo_weights, **options)


def test_weights_that_do_not_fit_are_refused(root, demo_weights, tmp_path):
    content = torch.load(demo_weights)
    del content['state_dict']['neck.lateral_convs.0.conv.weight']
    torch.save(content, tmp_path / 'part.pth')
    with pytest.raises(RuntimeError, match='missing: neck.lateral_convs.0.conv.weight'):
        Predictor(root / DEMO, tmp_path / 'part.pth', 'cpu')
    cfg = Config(dict(default_scope='mmpose', model=dict(backbone=dict())))
    with pytest.raises(ValueError, match="default_scope='mmpose'"):
        Predictor(cfg, None, 'cpu')


def test_classifier_with_a_centre_crop(tmp_path):
    """Its prediction is the mean of all patches, so the whole image is what looked."""
    arch = dict(
        embed_dims=(8,) * 4, num_heads=(1,) * 4, mlp_ratios=(1,) * 4, depths=(1,) * 4
    )  # fmt: skip
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='ResizeEdge', scale=75, edge='short'),
        dict(type='CenterCrop', crop_size=64),
        dict(type='PackInputs'),
    ]
    cfg = Config(
        dict(
            default_scope='mmpretrain',
            model=dict(
                type='ImageClassifier',
                data_preprocessor=dict(mean=[0.0] * 3, std=[255.0] * 3),
                backbone=dict(type='PaCaViT', arch=arch, num_clusters=4, out_indices=(3,)),
                neck=dict(type='GlobalAveragePooling'),
                head=dict(type='LinearClsHead', num_classes=10, in_channels=8),
            ),
            test_dataloader=dict(dataset=dict(type='CIFAR10', pipeline=pipeline)),
        )
    )
    image = np.random.default_rng(0).integers(0, 255, (103, 161, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / 'a.png'), image)
    predictor = Predictor(cfg, None, 'cpu')
    with record(predictor.model) as recording:
        loaded, sample = predictor(tmp_path / 'a.png')
    drawn = predictor.draw(loaded, sample, 0.3)
    assert drawn.ndim == 3 and recording.left_out == ()
    scene = Scene.from_sample(loaded, sample, recording, 0, predictor.classes)
    assert scene.geometry.resized_shape == (75, 117) and scene.geometry.offset == (6, 26)
    (detection,) = scene.detections
    assert detection.mask.all() and detection.name == predictor.classes[int(sample.pred_label)]
    block = scene.blocks[3]
    expected = (block.attention[0].mean((0, 1, 2)) @ block.assignment[0].flatten(1)).view(2, 2)
    np.testing.assert_allclose(scene.relevance(block, detection), expected, rtol=1e-5)
    assert len(dict(all_sheets(scene))) == 5
