"""A run that dies and is resumed ends with the weights of one that does not die."""

import functools
import random
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
import toy

from mmpaca.engine.rng import get_rng_state, seeded, set_rng_state

# Loop, sampler, kind of checkpoint.
RUNS = {
    'epochs': dict(epochs=True),
    'epochs saved inside': dict(epochs=True, checkpoint=dict(by_epoch=False, interval=4)),
    'iterations': dict(epochs=False),
    'iterations in passes': dict(epochs=False, infinite=False),
    'iterations, random seed': dict(epochs=False, seed=None),
    'epochs, random seed': dict(epochs=True, seed=None),
}
KILLS = (dict(train=3), dict(train=14), dict(val=12))


def calls(work_dir: Path, processes: int, **kwargs) -> list:
    if processes == 1:
        return [functools.partial(toy.train, work_dir, **kwargs)]
    return [
        functools.partial(toy.train, work_dir, world=(rank, processes), **kwargs)
        for rank in range(processes)
    ]


def assert_same_run(a: Path, b: Path) -> None:
    """The contents of a checkpoint without times and paths."""
    a, b = toy.last(a), toy.last(b)
    assert a.keys() == b.keys()
    for key in a.keys() - {'meta', 'message_hub'}:
        assert toy.equal(a[key], b[key]), key
    for key in ('epoch', 'iter', 'seed'):
        assert a['meta'][key] == b['meta'][key]
    a, b = (run['message_hub']['log_scalars'] for run in (a, b))
    for key in ('train/loss', 'train/lr', 'val/mAP'):
        assert np.array_equal(a[key].data[0], b[key].data[0]), key


@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory):
    """Return a function: kind of run -> folder of an uninterrupted run."""
    folder = tmp_path_factory.mktemp('undisturbed')

    @functools.cache
    def run(kind: str, processes: int) -> Path:
        work_dir = folder / f'{kind} {processes}'
        assert toy.forked(*calls(work_dir, processes, **RUNS[kind])) == [0] * processes
        return work_dir

    return run


@pytest.mark.parametrize('processes', [1, 2])
@pytest.mark.parametrize('kind', [kind for kind in RUNS if 'random' not in kind])
def test_dead_and_resumed(undisturbed, tmp_path, kind, processes):
    for kill in KILLS if processes == 1 else KILLS[1:]:
        # Two processes share an epoch of half as many iterations.
        kill = {k: v // 2 for k, v in kill.items()} if processes == 2 and 'ep' in kind else kill
        work_dir = tmp_path / f'{kill}'
        killer = dict(type='Killer', **kill)
        dead = toy.forked(*calls(work_dir, processes, hooks=(killer,), **RUNS[kind]))
        assert dead == [-signal.SIGKILL] * processes
        resumed = toy.forked(*calls(work_dir, processes, resume=True, **RUNS[kind]))
        assert resumed == [0] * processes
        assert_same_run(undisturbed(kind, processes), work_dir)


@pytest.mark.parametrize('kind', ['epochs, random seed', 'iterations, random seed'])
def test_without_a_seed_too(tmp_path, kind):
    """Two resumed runs from one checkpoint are equal."""
    killer = dict(type='Killer', train=14)
    assert toy.forked(*calls(tmp_path / 'a', 1, hooks=(killer,), **RUNS[kind])) == [-signal.SIGKILL]
    shutil.copytree(tmp_path / 'a', tmp_path / 'b')
    for name in ('a', 'b'):
        assert toy.forked(*calls(tmp_path / name, 1, resume=True, **RUNS[kind])) == [0]
    assert_same_run(tmp_path / 'a', tmp_path / 'b')


def test_skipped_batches_are_not_loaded(tmp_path):
    kwargs = dict(epochs=False, checkpoint=dict(interval=12))
    killer = dict(type='Killer', train=14)
    assert toy.forked(*calls(tmp_path / 'a', 1, hooks=(killer,), **kwargs)) == [-signal.SIGKILL]

    def resume() -> None:
        loaded = []
        original = toy.Data.__getitem__
        toy.Data.__getitem__ = lambda self, i: loaded.append(i) or original(self, i)
        toy.train(tmp_path / 'a', resume=True, **kwargs)
        validations = 3  # one of them made up for: 12, 18, 24
        assert len(loaded) == 12 * toy.BATCH + validations * toy.SIZE, loaded

    assert toy.forked(resume) == [0]


def test_another_number_of_processes_is_refused(tmp_path, capfd):
    killer = dict(type='Killer', train=14)
    assert toy.forked(*calls(tmp_path / 'a', 1, hooks=(killer,))) == [-signal.SIGKILL]
    assert toy.forked(*calls(tmp_path / 'a', 2, resume=True)) == [1, 1]
    assert (
        capfd.readouterr().err.count(
            'was started with 1 processes and cannot be resumed with 2: use 1, or start'
        )
        == 2
    )


def test_a_changed_epoch_is_refused_inside_it(tmp_path, capfd):
    killer = dict(type='Killer', train=14)
    kind = RUNS['epochs saved inside']
    assert toy.forked(*calls(tmp_path / 'a', 1, hooks=(killer,), **kind)) == [-signal.SIGKILL]

    def resume() -> None:
        toy.BATCH = 4
        toy.train(tmp_path / 'a', resume=True, **kind)

    assert toy.forked(resume) == [1]
    assert 'inside an epoch of 6 batches, which now has 3' in capfd.readouterr().err


@pytest.mark.parametrize('kind', ['epochs', 'iterations'])
def test_dead_twice_with_a_best_checkpoint(tmp_path, kind):
    """The validation that is made up for saves the best checkpoint, and the last one again."""
    kwargs = dict(RUNS[kind])
    kwargs['checkpoint'] = dict(save_best='mAP', **({} if kind == 'epochs' else dict(interval=6)))
    for name, kills in (('whole', []), ('dead', [dict(val=12), dict(train=14)])):
        for number, kill in enumerate([*kills, None]):
            hooks = (dict(type='Killer', **kill),) if kill else ()
            (call,) = calls(tmp_path / name, 1, resume=number > 0, hooks=hooks, end=3, **kwargs)
            assert toy.forked(call) == [-signal.SIGKILL if kill else 0]
    assert_same_run(tmp_path / 'whole', tmp_path / 'dead')


@pytest.mark.parametrize(('before', 'after'), [(2, 4), (4, 2)])
def test_another_batch_size_from_the_end_of_an_epoch(tmp_path, before, after):
    """Dead inside an epoch of the new size, the run is the one that does not die."""
    done, length = 2 * toy.SIZE // before, toy.SIZE // after

    def run(name: str, batch: int, kill: int | None = None, **kwargs) -> functools.partial:
        def train() -> None:
            toy.BATCH = batch
            hooks = (dict(type='Killer', train=kill),) if kill else ()
            toy.train(tmp_path / name, hooks=hooks, **kwargs)

        return train

    assert toy.forked(run('a', before, kill=done + 1)) == [-signal.SIGKILL]
    work_dir = tmp_path / 'a'
    (work_dir / 'epoch_2.pth').rename(work_dir / f'iter_{done}.pth')
    (work_dir / 'last_checkpoint').write_text(f'{work_dir}/iter_{done}.pth')
    shutil.copytree(work_dir, tmp_path / 'b')
    resumed = dict(resume=True, checkpoint=dict(by_epoch=False, interval=1))
    inside = run('b', after, kill=done + length + 2, **resumed)
    assert toy.forked(run('a', after, **resumed), inside) == [0, -signal.SIGKILL]
    assert toy.forked(run('b', after, **resumed)) == [0]
    assert_same_run(tmp_path / 'a', tmp_path / 'b')
    assert toy.last(tmp_path / 'a')['meta']['iter'] == done + 2 * length


def draw() -> list[float]:
    return [random.random(), np.random.rand(), np.random.randn(), torch.rand(1).item()]


def test_generators_come_back():
    np.random.randn()  # leaves one normal number in reserve
    state = get_rng_state()
    first = draw()
    assert draw() != first
    set_rng_state(state)
    assert draw() == first


@pytest.mark.parametrize(('device', 'visible', 'expected'), [(0, 4, 0), (2, 4, 2), (1, 1, 0)])
def test_the_generator_of_one_gpu(monkeypatch, device, visible, expected):
    """With any number of visible GPUs, and from older checkpoints with the states of all."""
    states = [torch.full((16,), i, dtype=torch.uint8) for i in range(visible)]
    restored = []
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'current_device', lambda: device)
    monkeypatch.setattr(torch.cuda, 'get_rng_state', lambda: states[expected])
    monkeypatch.setattr(torch.cuda, 'set_rng_state', restored.append)
    state = get_rng_state()
    set_rng_state(state)
    set_rng_state({**state, 'cuda': states})
    assert [int(values[0]) for values in restored] == [expected, expected]


def test_the_best_checkpoint_of_two_processes(tmp_path):
    """It has no random states, without a warning; regular checkpoints have those of both ranks."""
    kwargs = dict(end=1, checkpoint=dict(save_best='mAP'))
    assert toy.forked(*calls(tmp_path / 'run', 2, **kwargs)) == [0, 0]
    best = torch.load(tmp_path / 'run/best_mAP_epoch_1.pth', weights_only=False)
    assert 'run_state' not in best and 'optimizer' not in best
    assert len(toy.last(tmp_path / 'run')['run_state']['rng']) == 2
    (log,) = (tmp_path / 'run').glob('*/*.log')
    assert 'random states' not in log.read_text()


def test_seeded_draws_depend_on_the_numbers_and_leave_no_trace():
    draws = []
    for numbers in ((1, 2, 3), (1, 2, 4), (3, 2, 1), (1, 2, 3)):
        before = get_rng_state()
        with seeded(*numbers):
            draws.append(draw())
        assert toy.equal(before, get_rng_state())
    assert draws[0] == draws[3] and len({tuple(d) for d in draws}) == 3
