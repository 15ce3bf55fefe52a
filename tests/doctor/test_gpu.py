"""The logic of the GPU check, on the CPU."""

import json

import pytest
import torch
from commands import start_server

from mmpaca.__main__ import main
from mmpaca.analysis import timing
from mmpaca.doctor import golden, gpu


def test_quick_check_on_the_cpu(monkeypatch, tmp_path):
    """Every part but those of CUDA gives figures; the timings mean nothing here."""
    monkeypatch.setattr(
        gpu, '_kernels', lambda call, device: call() or 7
    )  # profiling takes seconds
    monkeypatch.setattr(timing, '_GEMM_SIZES', (64, 128))  # so do large products
    start_server()  # its processes come from it
    arguments = ['--device', 'cpu', '--quick', '--out-dir', str(tmp_path)]
    assert main(['doctor', '--gpu', *arguments]) == 0
    parts = json.loads((tmp_path / 'gpu_check.json').read_text())
    assert {part['status'] for part in parts.values()} == {'ok'}
    assert parts['pooling bfloat16']['figures']['error'] < 1e-3
    assert parts['golden parity']['figures'].keys() == {'float64', 'float32'}
    attention = parts['attention order']['figures']
    assert attention['order'].startswith('FLASH_ATTENTION')
    # A CPU has these two, for every stage and type.
    assert len(attention) == 1 + 4 * 2
    for name in ('stage 0 float32', 'stage 3 bfloat16'):
        assert attention[name].keys() == {'taken', 'FLASH_ATTENTION ms', 'MATH ms', 'mmpaca ms'}
        assert attention[name]['taken'] == 'FLASH_ATTENTION'
    assert max(parts['operators float32']['figures'].values()) < 1e-4
    assert parts['kill and resume']['figures']['equal_tensors'] > 50
    assert parts['gloo']['figures']['error'] < 1e-3
    assert parts['speed paca-t train bfloat16']['figures']['kernels'] == 7
    report = (tmp_path / 'gpu_check.md').read_text()
    assert f'{len(parts)} parts, 0 failed: -' in report and '| kill and resume | ok |' in report


def test_other_numbers_than_the_authors_are_an_error(monkeypatch):
    made = golden.official_tensor
    monkeypatch.setattr(
        golden,
        'official_tensor',
        lambda name, shape: made(name, shape) * (1.001 if name.endswith('q.weight') else 1),
    )
    with pytest.raises(golden.GoldenError, match='are above'):
        golden.check_golden(torch.device('cpu'))


def test_a_part_that_fails_does_not_stop_the_others(tmp_path):
    check = gpu.Check(torch.device('cpu'))
    check.run('first', lambda: 1 / 0)
    check.run('second', lambda: dict(value=1.0))
    check.seconds = -1.0
    check.run('late', lambda: dict(value=1.0))
    assert [part['status'] for part in check.parts.values()] == ['FAILED', 'ok', 'left out']
    _, text = gpu.write_report(check.parts, tmp_path)
    assert '1 failed: first' in text.read_text()
    assert 'ZeroDivisionError: division by zero' in text.read_text()


def test_without_a_gpu_the_check_says_so(capsys):
    assert main(['doctor', '--gpu']) == 1
    assert '--gpu: no usable GPU here; --device cpu --quick' in capsys.readouterr().err
