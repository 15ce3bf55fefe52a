"""A signal saves the run and ends it; the resumed run ends with the weights of an undisturbed one."""

import functools
import multiprocessing
import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
import toy
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from test_resume_hook import assert_same_run, calls
from torch.utils.data import DataLoader

from mmpaca.engine.hooks.preemption_hook import _IgnoreSignals

TERM, USR1, INT = signal.SIGTERM, signal.SIGUSR1, signal.SIGINT
# A run of four epochs, or 24 iterations, of one process.
RUNS = {
    'epochs': dict(epochs=True),
    'epochs, rare checkpoints': dict(epochs=True, checkpoint=dict(interval=3, max_keep_ckpts=1)),
    'best': dict(epochs=True, checkpoint=dict(save_best='mAP', max_keep_ckpts=1)),
    'iterations': dict(epochs=False, checkpoint=dict(interval=4)),
}


@HOOKS.register_module('Sender')
class Sender(Hook):
    """Send a signal to the last rank, at an iteration of training or validation or in a save."""

    def __init__(self, number: int, train=None, val=None, save=None, rank: int = 0) -> None:
        self.number, self.train, self.val, self.save, self.rank = number, train, val, save, rank

    def send(self, runner) -> None:
        if runner.rank == self.rank:
            os.kill(os.getpid(), self.number)

    def after_train_iter(self, runner, *args, **kwargs) -> None:
        if runner.iter + 1 == self.train:
            self.send(runner)

    def after_val_iter(self, runner, batch_idx, *args, **kwargs) -> None:
        if runner.iter == self.val and batch_idx == 1:
            self.send(runner)

    def before_save_checkpoint(self, runner, checkpoint) -> None:
        if checkpoint['meta']['iter'] == self.save:
            self.send(runner)


@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp('undisturbed')

    @functools.cache
    def run(kind: str, processes: int) -> Path:
        work_dir = folder / f'{kind} {processes}'
        assert toy.forked(*calls(work_dir, processes, **RUNS[kind])) == [0] * processes
        return work_dir

    return run


def saved(work_dir: Path) -> tuple[str, int, int]:
    """Name, epoch and iteration of the last checkpoint."""
    meta = toy.last(work_dir)['meta']
    return Path((work_dir / 'last_checkpoint').read_text()).name, meta['epoch'], meta['iter']


@pytest.mark.parametrize(
    ('kind', 'processes', 'sent', 'expected'),
    [
        ('epochs', 1, dict(number=TERM, train=9), ('preempted_iter_9.pth', 1, 9)),
        ('epochs', 1, dict(number=INT, train=12), ('preempted_iter_12.pth', 1, 12)),
        ('epochs', 1, dict(number=USR1, val=12), ('epoch_2.pth', 2, 12)),
        ('epochs', 1, dict(number=TERM, save=12), ('epoch_2.pth', 2, 12)),
        ('best', 1, dict(number=TERM, val=24), ('epoch_4.pth', 4, 24)),
        ('epochs, rare checkpoints', 1, dict(number=TERM, val=12), ('preempted_iter_12.pth', 2, 12)),
        ('epochs, rare checkpoints', 2, dict(number=TERM, val=6), ('preempted_iter_6.pth', 2, 6)),
        ('iterations', 1, dict(number=TERM, val=6), ('preempted_iter_6.pth', 0, 6)),
        ('iterations', 1, dict(number=USR1, save=8), ('iter_8.pth', 0, 8)),
        ('iterations', 2, dict(number=USR1, train=9), ('preempted_iter_9.pth', 0, 9)),
        ('iterations', 2, dict(number=TERM, val=18), ('preempted_iter_18.pth', 0, 18)),
    ],
)  # fmt: skip
def test_preempted_and_resumed(undisturbed, tmp_path, kind, processes, sent, expected):
    """Sent to one rank; all ranks end with its status, and nothing is left of the preemption."""
    hook = dict(type='Sender', rank=processes - 1, **sent)
    status = toy.forked(*calls(tmp_path / 'run', processes, hooks=(hook,), **RUNS[kind]))
    assert status == [128 + sent['number']] * processes
    assert saved(tmp_path / 'run') == expected
    resumed = toy.forked(*calls(tmp_path / 'run', processes, resume=True, **RUNS[kind]))
    assert resumed == [0] * processes
    assert_same_run(undisturbed(kind, processes), tmp_path / 'run')
    assert not list((tmp_path / 'run').glob('preempted*'))


def test_preempted_again_in_the_repeated_validation(undisturbed, tmp_path):
    """Nothing is saved then: what the run resumed from is its state."""
    kind = RUNS['epochs, rare checkpoints']
    hook = dict(type='Sender', number=TERM, val=12)
    for resume in (False, True):
        calling = calls(tmp_path / 'run', 1, hooks=(hook,), resume=resume, **kind)
        assert toy.forked(*calling) == [143]
        assert saved(tmp_path / 'run') == ('preempted_iter_12.pth', 2, 12)
    assert toy.forked(*calls(tmp_path / 'run', 1, resume=True, **kind)) == [0]
    assert_same_run(undisturbed('epochs, rare checkpoints', 1), tmp_path / 'run')


def test_moved_with_the_clock_set_back(undisturbed, tmp_path):
    """The work directory is renamed in between; a new run stands where it was."""
    old, new = tmp_path / 'run', tmp_path / 'Läufe 2' / 'zweiter Lauf ü'
    hook = dict(type='Sender', number=TERM, train=9)
    assert toy.forked(*calls(old, 1, hooks=(hook,), **RUNS['epochs'])) == [143]
    new.parent.mkdir()
    old.rename(new)
    assert toy.forked(*calls(old, 1, seed=4, **RUNS['epochs'])) == [0]
    for path in new.rglob('*'):
        os.utime(path, (0, 0))
    assert toy.forked(*calls(new, 1, resume=True, **RUNS['epochs'])) == [0]
    assert_same_run(undisturbed('epochs', 1), new)
    assert not list(new.glob('preempted*'))


def test_handlers_are_restored(tmp_path):
    def run() -> None:
        before = [signal.getsignal(number) for number in (TERM, USR1, INT)]
        toy.train(tmp_path / 'run', end=1)
        assert [signal.getsignal(number) for number in (TERM, USR1, INT)] == before

    assert toy.forked(run) == [0]


def test_workers_outlive_signals_to_the_group_and_end_with_their_process():
    """All processes of a job get its signals; only the training process decides when to end."""

    def run() -> None:
        loader = DataLoader(range(8), num_workers=2, worker_init_fn=_IgnoreSignals(None))
        batches = iter(loader)
        loaded = [next(batches).item(), next(batches).item()]
        workers = [process.pid for process in multiprocessing.active_children()]
        for pid in workers:
            for number in (TERM, USR1, INT):  # as another process would: a child of this one
                subprocess.run(['kill', f'-{int(number)}', str(pid)], check=True)
        assert loaded + [batch.item() for batch in batches] == list(range(8))
        pids.write_text(' '.join(map(str, workers)))

    def die() -> None:
        loader = DataLoader(range(99), num_workers=1, worker_init_fn=_IgnoreSignals(None))
        batches = iter(loader)
        next(batches)
        pids.write_text(str(multiprocessing.active_children()[0].pid))
        os.kill(os.getpid(), signal.SIGKILL)

    with tempfile.TemporaryDirectory() as folder:
        pids = Path(folder, 'pids')
        for call, status in ((run, 0), (die, -signal.SIGKILL)):
            assert toy.forked(call) == [status]
            end = time.monotonic() + 10
            while any(map(is_running, pids.read_text().split())):
                assert time.monotonic() < end
                time.sleep(0.05)


def is_running(pid: str) -> bool:
    """False for what has ended and is not waited for."""
    status = Path(f'/proc/{pid}/stat')
    return status.is_file() and status.read_text().rpartition(')')[2].split()[0] != 'Z'
