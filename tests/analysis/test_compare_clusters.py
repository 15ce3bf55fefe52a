"""The comparison of clusters: its terms by hand, and two iterations of two variants."""

import multiprocessing
import re
import runpy
import sys
from types import SimpleNamespace

import pytest
import torch

from mmpaca.models import PatchToClusterAttention


@pytest.fixture
def script(root) -> dict:
    return runpy.run_path(str(root / 'tools/analysis/compare_clusters.py'))


def test_terms(script):
    terms = {name: lambda z, f=f: f(z).item() for name, f in script['TERMS'].items()}
    even = torch.full((2, 3, 12), 1 / 12)  # all clusters are the mean of all patches
    apart = torch.eye(3).repeat_interleave(4, dim=1)[None] / 4  # each has four patches of its own
    for z, entropy, diversity, information in (
        (even, 1, 1, 1),
        (apart, torch.log(torch.tensor(4.0)) / torch.log(torch.tensor(12.0)), 0, 0),
        (apart[:, [0, 0, 0]], torch.log(torch.tensor(4.0)) / torch.log(torch.tensor(12.0)), 1, 1),
        (torch.cat([apart, even[:1]]), 0.778943, 0.5, 0.5),
    ):
        assert terms['entropy'](z) == pytest.approx(float(entropy), abs=1e-6)
        assert terms['diversity'](z) == pytest.approx(diversity, abs=1e-6)
        assert terms['information'](z) == pytest.approx(information, abs=1e-6)


def test_gradients_where_a_cluster_takes_nothing(script):
    """Softmax of distant logits is 0 exactly."""
    for term in script['TERMS'].values():
        logits = torch.tensor([[[0.0, 1.0, -300.0], [2.0, 0.0, -400.0]]], requires_grad=True)
        term(logits.softmax(-1)).backward()
        assert logits.grad.isfinite().all() and logits.grad.abs().max() > 0


def test_temperature_and_term(script):
    torch.manual_seed(0)
    attention = PatchToClusterAttention(8, 2, num_clusters=3, clustering='conv')
    x = torch.rand(1, 4, 5, 8)
    logits = attention.clustering(x).flatten(2)
    hook = script['ClusterTerm'](temperature=0.01, term='entropy')
    hook.before_run(SimpleNamespace(model=torch.nn.ModuleList([attention])))
    z = attention(x)[1]
    torch.testing.assert_close(z, (logits / 0.01).softmax(-1))
    assert hook.penalty(z) == script['TERMS']['entropy'](z)


def test_variants(script, root, shapes, tmp_path, monkeypatch):
    config = str(root / 'configs/demo/mask-rcnn_paca-demo_shapes.py')
    options = [f'{part}_dataloader.dataset.data_root={shapes}' for part in ('train', 'val')]
    options += ['train_dataloader.num_workers=1', 'train_dataloader.persistent_workers=True']
    options += ['val_dataloader.num_workers=0', 'val_dataloader.persistent_workers=False']
    options += [f'val_evaluator.{i}.ann_file={shapes}/annotations/val.json' for i in range(2)] + [
        'train_dataloader.batch_size=2'
    ]
    options += ['default_hooks.logger.interval=1']
    words = [config, '--iters', '2', '--variants', '16 clusters', 'information 1']
    words += ['--out', str(tmp_path), '--cfg-options', *options]
    monkeypatch.setattr(sys, 'argv', ['compare_clusters.py', *words])
    workers = set(multiprocessing.active_children())
    script['main']()
    assert set(multiprocessing.active_children()) <= workers
    lines = (tmp_path / 'clusters.md').read_text().splitlines()
    assert [line.split(' | ')[:2] for line in lines[2:]] == [
        ['| 16 clusters', '0'],
        ['| information 1', '0'],
    ]
    in_use = [float(line.split(' | ')[6]) for line in lines[2:]]
    assert 1 <= in_use[0] <= 16
    (log,) = (tmp_path / 'information_1_seed0').glob('*/*.log')
    values = [float(v) for v in re.findall(r'loss_clusters: (-?[0-9.]+)', log.read_text())]
    assert len(values) == 2 and all(0 < value < 1 for value in values)
