"""The tools that time hooks and the parts of a detector."""

import runpy
from argparse import Namespace

import pytest
from mmengine.config import Config

TINY = """
_base_ = '{demo}'
model = dict(
    backbone=dict(
        arch=dict(
            _delete_=True,
            embed_dims=(8,) * 4,
            num_heads=(1,) * 4,
            mlp_ratios=(1,) * 4,
            depths=(1,) * 4,
        ),
    ),
    neck=dict(in_channels=[8] * 4),
)
train_dataloader = dict(batch_size=1, num_workers=0, persistent_workers=False)
"""


@pytest.fixture(scope='module')
def tiny(root, tmp_path_factory) -> str:
    """A config of the demo with the smallest backbone."""
    path = tmp_path_factory.mktemp('config') / 'tiny.py'
    path.write_text(TINY.format(demo=root / 'configs/demo/mask-rcnn_paca-demo_shapes.py'))
    return str(path)


@pytest.fixture(scope='module')
def hook_cost(root) -> dict:
    return runpy.run_path(str(root / 'tools/analysis/hook_cost.py'))


@pytest.fixture(scope='module')
def shares(root) -> dict:
    return runpy.run_path(str(root / 'tools/analysis/detector_shares.py'))


def test_hooks_are_timed_in_a_training(hook_cost, tiny, shapes, tmp_path):
    args = Namespace(config=tiny, iters=1, warmup=1)
    found = {
        kind: hook_cost['time_run'](args, kind, shapes, tmp_path / kind)
        for kind in ('mmdet', 'mmpaca')
    }
    assert found['mmdet'].keys() - {'total'} >= {'IterTimerHook', 'LoggerHook', 'CheckpointHook'}
    only = found['mmpaca'].keys() - found['mmdet'].keys()
    ours = Config.fromfile(tiny).default_hooks
    assert only == {hook.type.partition('.')[2] for hook in ours.values() if 'mmpaca.' in hook.type}
    for kind, seconds in found.items():
        total = seconds.pop('total')
        assert 0 < sum(seconds.values()) < total
        assert (tmp_path / kind / 'iter_2.pth').is_file()


def test_a_part_inside_another_one_counts_once(shares, monkeypatch):
    sections = shares['Sections']('cpu')
    times = iter([0.0, 1.0, 4.0, 4.5, 6.5, 9.0, 9.25])
    monkeypatch.setattr('time.perf_counter', lambda: next(times))
    with sections.part('heads'):
        with sections.part('RoI operators'):  # from 1 to 4
            pass
        with sections.part('backward of heads'):  # from 4.5; the neck's from 6.5
            sections.replace('backward of neck')
    assert sections.seconds == {
        'heads': 1.0 + 0.5 + 0.25,
        'RoI operators': 3.0,
        'backward of heads': 2.0,
        'backward of neck': 2.5,
    }


def test_all_parts_of_a_detector_are_timed(shares, tiny, shapes, capsys):
    detector = shares['Detector'](tiny, 'config', (64, 96), 'cpu', shapes)
    inference = {'data', 'normalisation', 'backbone', 'neck', 'RoI operators', 'heads', 'post-processing', 'other'}  # fmt: skip
    predicted, trained = detector.run('predict'), detector.run('train')
    assert predicted.keys() == inference
    assert trained.keys() == inference | {'losses', 'optimizer', *shares['BACKWARD']}
    assert min(*predicted.values(), *trained.values()) > 0
    shares['print_table']('train', {detector.name: [trained]})
    cells = capsys.readouterr().out.splitlines()[-1].split('|')[2:-1]
    step, _, *parts = [int(cell) for cell in cells]
    assert step == pytest.approx(sum(parts), abs=len(parts))  # without data
    assert detector.name == 'tiny, config'
