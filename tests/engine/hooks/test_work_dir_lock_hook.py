"""Two runs never train in one work directory."""

import json
import os
import signal
from types import SimpleNamespace

import pytest
import toy
from test_resume_hook import calls

from mmpaca.engine import WorkDirLockHook
from mmpaca.engine.hooks.work_dir_lock_hook import saved_since_launch


@pytest.fixture
def training(tmp_path):
    """A training run as far as the hook sees it."""
    said = []
    logger = SimpleNamespace(warning=said.append)
    loop = toy.runner(tmp_path, end=1).train_loop
    return SimpleNamespace(work_dir=str(tmp_path), _train_loop=loop, logger=logger, said=said)


def refused(training) -> int:
    """The status of a process that wants to train there, too: 1 if it is refused."""
    return toy.forked(lambda: WorkDirLockHook().before_run(training))[0]


def test_a_second_run_is_refused_and_the_first_one_goes_on(training, capfd):
    first = WorkDirLockHook()
    first.before_run(training)
    assert refused(training) == 1
    said = f'{training.work_dir} is in use by process {os.getpid()} on host {os.uname().nodename}: wait'
    assert said in capfd.readouterr().err
    training.work_dir += '/'
    assert refused(training) == 1
    first.after_run(training)
    assert refused(training) == 0


def test_a_killed_run_leaves_no_lock_even_if_its_children_live(training):
    def die() -> None:
        WorkDirLockHook().before_run(training)
        assert refused(training) == 1
        if os.fork() == 0:  # as a DataLoader worker
            os.execvp('sleep', ['sleep', '5'])
        os.kill(os.getpid(), signal.SIGKILL)

    assert toy.forked(die) == [-signal.SIGKILL]
    assert refused(training) == 0


def test_testing_takes_no_lock(training):
    WorkDirLockHook().before_run(training)
    training._train_loop = dict()
    assert refused(training) == 0


@pytest.mark.parametrize('content', ['directory', 'fifo', 'link', b'\xff', b'[1]', b'{"pid": '])
def test_whatever_is_in_the_place_of_the_lock(training, tmp_path, content, capfd):
    path = tmp_path / '.lock'
    (tmp_path / 'precious').write_text('unchanged')
    if content == 'directory':
        path.mkdir()
    elif content == 'link':
        path.symlink_to('precious')
    elif content == 'fifo':
        os.mkfifo(path)
    else:
        path.write_bytes(content)
    assert refused(training) == (content in ('directory', 'link'))
    assert (tmp_path / 'precious').read_text() == 'unchanged'
    if content == 'directory':
        assert f'{path} cannot be written: Is a directory' in capfd.readouterr().err


def test_a_full_disk_is_no_reason_to_stop(training, monkeypatch):
    def full(*args):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(os, 'pwrite', full)
    WorkDirLockHook().before_run(training)
    assert refused(training) == 1 and 'No space left on device' in training.said[0]


def test_the_second_of_two_runs_of_two_processes(tmp_path, capfd):
    """Rank 0 finds the lock, all ranks stop."""
    holder = SimpleNamespace(work_dir=str(tmp_path / 'run'), logger=None)
    holder._train_loop = toy.runner(tmp_path / 'other', end=1).train_loop
    (tmp_path / 'run').mkdir()
    lock = WorkDirLockHook()
    lock.before_run(holder)
    assert toy.forked(*calls(tmp_path / 'run', 2)) == [1, 1]
    assert capfd.readouterr().err.count(f'is in use by process {os.getpid()}') == 2
    lock.after_run(holder)


def test_what_a_restarted_process_knows(training, tmp_path, monkeypatch):
    """Whether its run has saved: checkpoints of an older run do not count."""
    monkeypatch.setenv('TORCHELASTIC_RUN_ID', 'none')
    monkeypatch.setenv('TORCHELASTIC_RESTART_COUNT', '0')
    (tmp_path / 'last_checkpoint').write_text('of an older run')
    assert not saved_since_launch(tmp_path)
    lock = WorkDirLockHook()
    lock.before_run(training)
    lock.after_run(training)
    assert not saved_since_launch(tmp_path)
    (tmp_path / 'new').write_text('saved')
    (tmp_path / 'new').replace(tmp_path / 'last_checkpoint')
    assert saved_since_launch(tmp_path)
    lock.before_run(training)  # the restarted process keeps the entry
    lock.after_run(training)
    assert saved_since_launch(tmp_path)

    entry = json.loads((tmp_path / '.lock').read_text())
    (tmp_path / '.lock').write_text(json.dumps({**entry, 'launcher': ['other', 1, None]}))
    assert not saved_since_launch(tmp_path)  # a new launch
    monkeypatch.setenv('TORCHELASTIC_RESTART_COUNT', '1')
    assert saved_since_launch(tmp_path)  # restarted on another machine
    monkeypatch.delenv('TORCHELASTIC_RUN_ID')
    assert not saved_since_launch(tmp_path)
