"""The comparison of backbones, with small ones and a few iterations."""

import json
import runpy
import sys
from types import SimpleNamespace

import pytest
from mmengine.config import Config

from mmpaca.analysis import build_backbone
from mmpaca.analysis.budget import TrainingBudget

STAGES = dict(embed_dims=(8,) * 4, num_heads=(1,) * 4, mlp_ratios=(1,) * 4, depths=(1,) * 4)
SMALL = {
    'paca-micro': dict(type='PaCaViT', arch=STAGES, num_clusters=4),
    'resnet-18': dict(type='mmdet.ResNet', depth=18, base_channels=4, stem_channels=4),
}


@pytest.fixture
def script(root) -> dict:
    return runpy.run_path(str(root / 'tools/analysis/compare_backbones.py'))


@pytest.fixture
def compare(script, root, shapes, tmp_path, monkeypatch):
    """Run the script on the demo's data."""
    monkeypatch.setitem(script['main'].__globals__, 'BACKBONES', SMALL)
    monkeypatch.setitem(script['main'].__globals__, 'VALIDATIONS', 2)
    options = [f'{part}_dataloader.dataset.data_root={shapes}' for part in ('train', 'val')]
    options += [f'val_evaluator.ann_file={shapes}/annotations/val.json']
    for part in ('train', 'val'):
        options += [
            f'{part}_dataloader.num_workers=0',
            f'{part}_dataloader.persistent_workers=False',
        ]
    options += ['train_dataloader.batch_size=2']
    config = str(root / 'configs/demo/mask-rcnn_paca-demo_shapes.py')

    def run(*arguments: str) -> list[dict]:
        words = [config, *arguments, '--out', str(tmp_path), '--cfg-options', *options]
        monkeypatch.setattr(sys, 'argv', ['compare_backbones.py', *words])
        script['main']()
        return json.loads((tmp_path / 'backbones.json').read_text())

    return run


def test_equal_iterations(compare, tmp_path, capsys):
    compare('--iters', '2', '--backbones', 'resnet-18', '--lrs', '1e-2', '--seeds', '0')
    arguments = ['--iters', '2', '--backbones', 'paca-micro', '--lrs', '1e-4', '1e-2']
    results = compare(*arguments)
    runs = {(r['name'], r['lr'], r['seed']) for r in results}
    paca = {run for run in runs if run[0] == 'paca-micro'}
    assert runs - paca == {('resnet-18', 1e-2, 0)}
    assert len(paca) == 3 and {('paca-micro', 1e-4, 0), ('paca-micro', 1e-2, 0)} < paca
    for result in results:
        assert [point['iterations'] for point in result['points']] == [1, 2]
        assert result['points'][0]['seconds'] < result['points'][1]['seconds']
    table = (tmp_path / 'backbones.md').read_text()
    assert table.startswith('| backbone | mask AP') and all(
        f'| {name} | ' in table for name in SMALL
    )
    assert (tmp_path / 'backbones.png').stat().st_size > 10_000
    capsys.readouterr()
    assert compare(*arguments) == results
    assert capsys.readouterr().out.count('finished before, kept') == 3
    with pytest.raises(FileExistsError, match="'iters': 2,.*not of .*'iters': 5,"):
        compare('--iters', '5', '--lrs', '1e-4')


def test_the_best_of_the_learning_rates(script, tmp_path):
    def result(name: str, lr: float, seed: int, *values: float | None) -> dict:
        found = [{} if v is None else {'coco/bbox_mAP': v, 'coco/bbox_mAP_50': v} for v in values]
        points = [{**one, 'seconds': 8, 'iterations': 4} for one in found]
        return dict(name=name, lr=lr, seed=seed, points=points, params=2e6, macs=3e9)

    results = [
        result('a', 0.1, 0, 0.9, 0.3), result('a', 0.2, 0, 0.1, 0.4), result('a', 0.2, 1, 0.1, 0.6),
        result('b', 0.1, 0, None, 0.7), result('b', 0.2, 0, 0.0, None),
        result('c', 0.1, 0, None, None),
    ]  # fmt: skip
    assert script['table'](results).splitlines()[2:] == [
        '| b | 70.0 (70.0) | 70.0 | 0.1 (0.2: 0.0) | 2.0 | 3.00 | 2.00 | 4 |',
        '| a | 50.0 (40.0, 60.0) | 50.0 | 0.2 (0.1: 30.0) | 2.0 | 3.00 | 2.00 | 4 |',
        '| c | 0.0 (0.0) | 0.0 | 0.1 | 2.0 | 3.00 | 2.00 | 4 |',
    ]
    script['plot'](results, tmp_path / 'chart.png')
    assert (tmp_path / 'chart.png').stat().st_size > 10_000


def test_all_backbones_fit(script, root):
    args = SimpleNamespace(
        config=str(root / 'configs/real/mask-rcnn_paca-micro_nuclei.py'), cfg_options={}, out=root
    )
    for name, backbone in script['BACKBONES'].items():
        cfg = script['configure'](args, name, 1e-3, 0)
        assert isinstance(cfg, Config) and len(cfg.model.neck.in_channels) == 4
        assert cfg.optim_wrapper.optimizer.lr == 1e-3
        params = sum(p.numel() for p in build_backbone(backbone).parameters())
        limit = dict.fromkeys(('resnet-18', 'resnet-50'), 24e6).get(name, 5e6)
        assert 2.5e6 < params < limit, name


def test_a_budget_is_one_of_two():
    for wrong in ({}, dict(seconds=1.0, iters=1)):
        with pytest.raises(ValueError, match='give either seconds or iters'):
            TrainingBudget(**wrong)
