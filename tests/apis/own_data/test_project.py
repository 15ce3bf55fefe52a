"""``mmpaca train --data``: the config that it writes, a short training, and what is refused."""

import json
import logging
import shlex
import sys
from collections import OrderedDict

import pytest
from mmdet.visualization import DetLocalVisualizer
from mmengine.config import Config

from mmpaca.__main__ import main
from mmpaca.apis.own_data import project as own_data
from mmpaca.apis.own_data import recipe
from mmpaca.apis.own_data.timing import measure_seconds


@pytest.fixture
def quick(monkeypatch, tmp_path):
    """Without the steps that are measured; in a folder of its own."""
    monkeypatch.setattr(own_data, 'measure_seconds', lambda *_: (1.0, 0.1))
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures('quick')
def test_config_of_masks(shapes, tmp_path, capsys):
    """It parses, states the decisions above everything else, and says how long and why."""
    assert (
        main(['train', '--data', str(shapes), '--config-only', '--minutes', '5', '--top-view']) == 0
    )
    path = tmp_path / 'work_dirs' / shapes.name / f'{shapes.name}.py'
    printed = capsys.readouterr().out
    assert f'wrote {path}' in printed and '# --minutes 5: 1.00 s an iteration' in printed
    cfg = Config.fromfile(path)
    assert cfg.max_iters == cfg.train_cfg.max_iters == 268 and cfg.train_cfg.val_interval == 134
    assert cfg.model.type == 'MaskRCNN' and cfg.model.backbone.arch == 'micro'
    assert cfg.model.roi_head.bbox_head.num_classes == cfg.model.roi_head.mask_head.num_classes == 4
    assert cfg.model.neck.in_channels == [48, 96, 160, 224]
    assert cfg.work_dir == str(path.parent / 'train') and cfg.data_root == f'{shapes}/'
    assert cfg.val_evaluator.metric == ['bbox', 'segm']
    warmup, cosine = cfg.param_scheduler
    assert warmup.type == 'mmpaca.LinearWarmupLR' and 'end' not in cosine
    choices = next(t for t in cfg.train_pipeline if t['type'] == 'RandomChoice').transforms
    assert [round(c[0].scale_factor / cfg.zoom, 2) for c in choices] == [0.75, 0.87, 1, 1.15, 1.33]
    assert len(path.read_text().splitlines()) < 200
    # The config is the user's now.
    assert main(['train', '--data', str(shapes), '--config-only']) == 1
    assert 'exists: train it with `mmpaca train' in capsys.readouterr().err


def test_too_few_iterations_at_full_size(shapes, tmp_path, monkeypatch):
    tried = []

    def measure(config, detections):
        tried.append(config.zoom)
        return 4.0 * config.zoom**2, 0.0

    monkeypatch.setattr(own_data, 'measure_seconds', measure)
    monkeypatch.setattr(recipe, 'MIN_LONG_SIDE', 48)
    first = own_data.create_project(shapes, tmp_path / 'a', minutes=9)
    assert len(tried) == 2 and tried[1] == pytest.approx(tried[0] / 2, abs=1e-3)
    text = first.config.read_text()
    assert f'zoom = {tried[1]}' in text and 'less here, as too few' in ' '.join(text.split())
    assert Config.fromfile(first.config).max_iters == int(510 / (4 * tried[1] ** 2)) >= 200
    monkeypatch.setattr(recipe, 'MIN_LONG_SIDE', 256)  # as large as it is
    tried.clear()
    second = own_data.create_project(shapes, tmp_path / 'b', minutes=1)
    text = ' '.join(second.config.read_text().split())
    assert len(tried) == 1 and 'give more --minutes' in text and 'less here' not in text


@pytest.mark.usefixtures('quick')
def test_train_boxes(voc_shapes, tmp_path, capsys, monkeypatch):
    """From VOC files to a checkpoint, pictures and the page; the data stays as it was."""
    monkeypatch.setattr(sys, 'argv', ['mmpaca'])  # mmdet's tool gets another one
    # One of an earlier test would write the scores into that test's folder.
    monkeypatch.setattr(DetLocalVisualizer, '_instance_dict', OrderedDict())
    monkeypatch.setattr(own_data, '_SHOWN', 2)
    monkeypatch.setattr(own_data, '_EXPLAINED', 1)
    before = {path: path.read_bytes() for path in voc_shapes.rglob('*') if path.is_file()}
    options = ['train_cfg.max_iters=2', 'train_cfg.val_interval=2', 'train_dataloader.batch_size=2']
    options += ['train_dataloader.num_workers=0', 'train_dataloader.persistent_workers=False']
    options += ['val_dataloader.num_workers=0', 'default_hooks.checkpoint.interval=2']
    command = ['--data', str(voc_shapes), '--minutes', '1', '--arch', 'nano', '--work-dir', 'own']
    assert main(['train', *command, '--cfg-options', *options]) == 0
    printed = capsys.readouterr().out
    assert {path: path.read_bytes() for path in voc_shapes.rglob('*') if path.is_file()} == before
    own = tmp_path / 'own'
    assert (own / 'train/iter_2.pth').is_file() and (own / 'clusters/index.html').is_file()
    assert len(list((own / 'pictures/vis').iterdir())) == 2
    assert len(json.loads((own / 'annotations/val.json').read_text())['images']) == 5
    assert 'reached on 5 validation images: box AP 0.' in printed and 'star 0.' in printed
    assert '  mmpaca train ' in printed and 'give more --minutes' in printed
    (line,) = [line for line in printed.splitlines() if line.startswith('  mmpaca predict ')]
    config, checkpoint = str(own / 'my shapes.py'), str(own / 'train/iter_2.pth')
    assert shlex.split(line)[2:] == [config, checkpoint, 'IMAGES']
    assert Config.fromfile(config).model.type == 'FasterRCNN'


def test_seconds(shapes, tmp_path, monkeypatch):
    """A few steps of a tiny detector are measured, and logging is as before."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(own_data, 'measure_seconds', lambda *_: (1.0, 0.1))
    cfg = Config.fromfile(own_data.create_project(shapes, task='detect').config)
    cfg.model.backbone.arch = dict(embed_dims=(8,) * 4, num_heads=(1,) * 4, mlp_ratios=(1,) * 4, depths=(1,) * 4)  # fmt: skip
    cfg.model.neck.in_channels = [8] * 4
    cfg.train_dataloader.batch_size = 1
    iteration, image = measure_seconds(cfg, 2)
    assert image > 0 and 0 < iteration < 60
    assert logging.root.manager.disable == logging.NOTSET


@pytest.mark.usefixtures('quick')
@pytest.mark.parametrize(
    ('arguments', 'says'),
    [
        ([], 'give either CONFIG or --data DIR'),
        (['mask_rcnn_paca', '--data', '.'], 'give either CONFIG or --data DIR'),
        (['--data', 'nowhere'], 'folder not found: '),
        (['--data', '.'], 'no labels below '),
        (['--data', '.', '--nproc', '2'], '--data trains in one process: add --config-only'),
        (['--data', '.', '--work-dir', '/proc/x'], '--work-dir /proc/x: /proc is not writable'),
    ],
)
def test_one_sentence(capsys, arguments, says):
    assert main(['train', *arguments]) == 1
    printed = capsys.readouterr().err
    assert printed.startswith(f'error: {says}') and printed.count('\n') == 1


@pytest.mark.parametrize('minutes', ['0', 'nan', '-1', 'x'])
def test_minutes_are_positive(capsys, minutes):
    with pytest.raises(SystemExit):
        main(['train', '--data', '.', '--minutes', minutes])
    assert 'give a number above 0' in capsys.readouterr().err
