"""mmdet's demo command: another order of arguments for ``mmpaca predict``."""

import runpy
import sys

import cv2
import numpy as np
import pytest

CONFIG = 'configs/demo/mask-rcnn_paca-demo_shapes.py'


@pytest.fixture
def demo(root, tmp_path, monkeypatch):
    """Call the demo in this process, in a folder with an image."""
    image = np.random.default_rng(0).integers(0, 255, (70, 50, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / 'a.png'), image)
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> object:
        monkeypatch.setattr(sys, 'argv', ['image_demo.py', *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(root / 'demo/image_demo.py'), run_name='__main__')
        return end.value.code

    return call


def test_mmdets_arguments(demo, tmp_path, demo_weights):
    options = ('--batch-size', 2, '--pred-score-thr', 0.9, '--device', 'cpu', '--no-save-pred')
    assert demo(*options, 'a.png', CONFIG, '--weights', demo_weights) == 0
    assert [p.name for p in (tmp_path / 'outputs').rglob('*.*')] == ['a.jpg']


def test_errors(demo, capsys):
    assert demo('a.png', 'none', '--weights', 'model.pth') == 1
    assert 'error: config none' in capsys.readouterr().err
    assert demo('a.png', CONFIG, '--weights', 'model.pth') == 1
    assert 'error: checkpoint model.pth' in capsys.readouterr().err
    assert demo('a.png', CONFIG) == 2
    assert '--weights' in capsys.readouterr().err
