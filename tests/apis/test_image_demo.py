"""The image demo as a user calls it, from elsewhere, and what it says about bad input."""

import json
import runpy
import sys

import cv2
import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope

from mmpaca.apis.inference import Predictor

CONFIG = 'configs/demo/mask-rcnn_paca-demo_shapes.py'


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A working directory with a folder of images, which are padded to the same size."""
    (tmp_path / 'folder').mkdir()
    rng = np.random.default_rng(0)
    for name, size in (('a.png', (70, 50)), ('b.JPG', (84, 60))):
        pixels = rng.integers(0, 255, (*size, 3), dtype=np.uint8)
        cv2.imwrite(str(tmp_path / 'folder' / name), pixels)
    (tmp_path / 'folder/notes.txt').write_text('no image')
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def demo(root, monkeypatch):
    """Call the demo in this process."""

    def call(*arguments: object) -> None:
        monkeypatch.setattr(sys, 'argv', ['image_demo.py', *map(str, arguments)])
        with DefaultScope.overwrite_default_scope('mmdet'):
            runpy.run_path(str(root / 'demo/image_demo.py'), run_name='__main__')

    return call


def test_folder(demo, root, elsewhere, demo_weights, capsys):
    """mmdet's own predictions of every image, as numbers and drawn."""
    names = ('a.png', 'b.JPG')
    with DefaultScope.overwrite_default_scope('mmdet'):
        predictor = Predictor(root / CONFIG, demo_weights, 'cpu')
        predicted = [predictor(elsewhere / 'folder' / name) for name in names]
    weakest = min(sample.pred_instances.scores[2].item() for _, sample in predicted)
    options = ('--weights', demo_weights, '--device', 'cpu', '--pred-score-thr', weakest - 1e-3)
    demo('folder', CONFIG, '--batch-size', 2, *options)
    assert 'results of 2 images are in outputs' in capsys.readouterr().out
    for name, (image, sample) in zip(names, predicted, strict=True):
        drawn = cv2.imread(str(elsewhere / 'outputs/vis' / name))[..., ::-1].astype(int)
        assert drawn.shape == image.shape and np.abs(drawn - image).max() > 50
        found = json.loads((elsewhere / f'outputs/preds/{name[0]}.json').read_text())
        expected = sample.pred_instances
        np.testing.assert_allclose(found['scores'], expected.scores, atol=1e-4)
        np.testing.assert_allclose(found['bboxes'][:9], expected.bboxes[:9], atol=1e-2)
        assert found['labels'][:9] == expected.labels[:9].tolist()
        assert found['masks'][0]['size'] == list(image.shape[:2])


def test_bad_images(demo, elsewhere):
    def says(error: str, *images: str) -> None:
        with pytest.raises(SystemExit, match=error):
            demo(*images, CONFIG, '--weights', 'model.pth')

    says(r"error: 'nowhere\.png' is no image, no folder of images and no glob", 'nowhere.png')
    (elsewhere / 'empty').mkdir()
    says("'empty' is no image, no folder of images", 'folder', 'empty')
    whole = (elsewhere / 'folder/a.png').read_bytes()
    (elsewhere / 'half.png').write_bytes(whole[: len(whole) // 2])
    (elsewhere / 'text.jpg').write_text('no image')
    says('half.png is a truncated PNG file.*; text.jpg cannot be decoded', '*.png', 'text.jpg')
    (elsewhere / 'a.png').write_bytes(whole)
    says("2 images are called 'a'", 'folder', 'a.png')


def test_bad_models(demo, root, elsewhere, demo_weights):
    def says(error: str, *model: object) -> None:
        with pytest.raises(SystemExit, match=error):
            demo('folder', *model)

    says('error: config configs/none.py is neither in .* nor in', 'configs/none.py', '--weights', demo_weights)  # fmt: skip
    says('is a config: give the checkpoint to use as --weights', CONFIG)
    says('is a checkpoint: give the config', demo_weights)
    says('checkpoint none.pth does not exist', CONFIG, '--weights', 'none.pth')
    says('Cannot find model: no-such-model', 'no-such-model')
    classifier = 'configs/demo/paca-demo_digits.py'
    says("default_scope='mmpretrain'", classifier, '--weights', demo_weights)
    content = torch.load(demo_weights)
    del content['state_dict']['neck.lateral_convs.0.conv.weight']
    torch.save(content, elsewhere / 'part.pth')
    says('missing: neck.lateral_convs.0.conv.weight', CONFIG, '--weights', 'part.pth')
    assert not (elsewhere / 'outputs').exists()
