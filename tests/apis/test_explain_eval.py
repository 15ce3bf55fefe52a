"""``mmpaca explain-eval``: rows per method and detection, tables, and runs that continue."""

import json

import numpy as np
import pytest
import torch

from mmpaca.__main__ import main
from mmpaca.apis.explain_eval import (
    _inside,
    annotated_region,
    differences,
    format_table,
    shuffle_weights,
    summarise,
)
from mmpaca.commands.explain_eval import METHODS
from mmpaca.evaluation.faithfulness import rank_correlation
from mmpaca.explain import METHODS as ALL
from mmpaca.explain.scene import Detection

DEMO = 'configs/demo/mask-rcnn_paca-demo_shapes.py'


def test_command_measures_and_continues(root, shapes, demo_weights, tmp_path, capsys):
    assert tuple(ALL) == METHODS
    out = tmp_path / 'out.json'
    words = ['explain-eval', str(root / DEMO), str(demo_weights), '--out', str(out)]
    words += ['--data', str(shapes / 'annotations/val.json'), '--images', str(shapes / 'val')]
    words += ['--methods', 'paca', 'gaussian', '--steps', '2', '--num-detections', '2']
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert '2 detections' in printed and 'differences to paca' in printed
    saved = json.loads(out.read_text())
    rows = saved['rows']
    assert [(r['method'], r['detection']) for r in rows] == [
        ('paca', 0), ('paca', 1), ('gaussian', 0), ('gaussian', 1)
    ]  # fmt: skip
    for row in rows:
        assert 0 <= row['deletion'] <= 1 and 0 <= row['insertion'] <= 1 and row['seconds'] > 0
        assert 0 < row['sparsity'] < 1
        assert row['score'] > 0.3
    # A box is where it is, whatever the weights and the noise; relevance is not.
    for row in rows:
        same = row['method'] == 'gaussian'
        assert (row['randomised'] == pytest.approx(1)) == same
        assert (row['stability'] == pytest.approx(1)) == same
    # The same command has nothing left to do; another one does not take its file.
    assert main(words) == 0 and json.loads(out.read_text()) == saved
    assert main([*words, '--score-thr', '0.5']) == 1
    assert 'has results of other settings' in capsys.readouterr().err
    out.write_text('[]')
    assert main(words) == 1 and 'is not a result of explain-eval' in capsys.readouterr().err


def test_annotated_region():
    detection = Detection('a', 0.9, (0, 0, 10, 10), None, 1)
    boxes = [
        dict(bbox=[0, 0, 10, 10], bbox_label=0),  # another class
        dict(bbox=[0, 0, 10, 6], bbox_label=1),  # IoU 0.6
        dict(bbox=[0, 0, 10, 8], bbox_label=1),  # IoU 0.8
        dict(bbox=[0, 0, 10, 10], bbox_label=1, ignore_flag=1),
    ]
    region = annotated_region(detection, boxes, (12, 12))
    assert region.sum() == 80 and region[:8, :10].all()
    assert annotated_region(detection, boxes[:1], (12, 12)) is None
    boxes[2]['mask'] = [[0, 0, 4, 0, 4, 4, 0, 4]]
    assert annotated_region(detection, boxes, (12, 12)).sum() == 16


def test_correlations_are_inside_the_box():
    heat = np.arange(20).reshape(4, 5)
    detection = Detection('a', 0.9, (-1, 1.2, 2.5, 3), None, 1)
    assert _inside(heat, detection).tolist() == [[5, 6, 7], [10, 11, 12]]
    assert np.isnan(
        rank_correlation(*[_inside(heat, Detection('a', 0.9, (5, 0, 5, 2), None, 1))] * 2)
    )


def test_shuffled_weights():
    model = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.LayerNorm(4))
    shuffled = shuffle_weights(model)
    before, after = (m[0].weight.detach().flatten() for m in (model, shuffled))
    assert not torch.equal(before, after)
    assert torch.equal(before.sort().values, after.sort().values)
    assert torch.equal(model[0].bias, shuffled[0].bias)


def test_differences_are_paired():
    rows = [
        dict(method=method, image=i, detection=0, deletion=i / 10 + more)
        for method, more in (('paca', 0), ('random', 0.5))
        for i in range(4)
    ]
    assert summarise(rows)['paca']['deletion'][0] == pytest.approx(0.15)
    found = differences(rows)
    assert list(found) == ['random']
    assert found['random']['deletion'] == pytest.approx((0.5, 0.5, 0.5))  # always 0.5 more
    assert np.isnan(found['random']['pointing'][0])
    assert '0.500 [0.500, 0.500]' in format_table(found)
