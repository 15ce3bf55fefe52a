"""A full or read-only disk: outputs are lost with a warning, the run is the same run."""

import errno
import functools
import os
from pathlib import Path

import pytest
import toy
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.visualization import LocalVisBackend

TOLERANT = dict(type='mmpaca.TolerantOutputHook')


@HOOKS.register_module('FullDisk')
class FullDisk(Hook):
    """From the third iteration on, logs and scalars cannot be written; checkpoints can."""

    def before_train_iter(self, runner, *args, **kwargs) -> None:
        if runner.iter == 2:
            folder = Path(runner.log_dir, 'vis_data')
            for name in ('scalars.json', f'{runner.timestamp}.json'):
                (folder / name).unlink()
                (folder / name).symlink_to('/dev/full')
            (log,) = (h for h in runner.logger.handlers if hasattr(h, 'baseFilename'))
            log.setStream(open('/dev/full', 'w'))  # noqa: SIM115

    def after_train_iter(self, runner, *args, **kwargs) -> None:
        runner.logger.warning(f'iteration {runner.iter + 1}')


def fail(self, *args) -> None:
    raise OSError(errno.EROFS, os.strerror(errno.EROFS), '/tmp/results.json')


def train(work_dir: Path, *hooks: dict, read_only: bool = False) -> None:
    if read_only:
        LocalVisBackend._dump = toy.Score.compute_metrics = fail
    logger = dict(type='LoggerHook', interval=1)
    toy.train(work_dir, end=1, hooks=(dict(logger, priority='BELOW_NORMAL'), *hooks))


@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory) -> dict:
    work_dir = tmp_path_factory.mktemp('undisturbed') / 'run'
    assert toy.forked(lambda: train(work_dir, TOLERANT)) == [0]
    return toy.last(work_dir)


def test_a_full_disk_while_logging(undisturbed, tmp_path, capfd):
    call = functools.partial(train, tmp_path / 'run')
    assert toy.forked(lambda: call(TOLERANT, dict(type='FullDisk'))) == [0]
    captured = capfd.readouterr()
    printed = captured.out + captured.err
    assert printed.count('is incomplete, the run continues') == 2, printed
    assert 'No space left on device: log is incomplete' in printed
    assert 'No space left on device: LocalVisBackend.add_scalars is incomplete' in printed
    assert 'Traceback' not in printed and printed.count('iteration 6') == 1
    assert toy.equal(toy.last(tmp_path / 'run')['state_dict'], undisturbed['state_dict'])


def test_a_read_only_disk_while_evaluating(undisturbed, tmp_path, capfd):
    call = functools.partial(train, tmp_path / 'run')
    assert toy.forked(lambda: call(TOLERANT, read_only=True)) == [0]
    printed = capfd.readouterr().out
    says = '/tmp/results.json: Read-only file system: {} is incomplete, the run continues'
    for output in ('Score.compute_metrics', 'LocalVisBackend.add_scalars'):
        assert printed.count(says.format(output)) == 1
    assert toy.equal(toy.last(tmp_path / 'run')['state_dict'], undisturbed['state_dict'])


def test_without_it_the_run_ends(tmp_path, capfd):
    call = functools.partial(train, tmp_path / 'run')
    assert toy.forked(lambda: call(read_only=True)) == [1]
    assert 'OSError: [Errno 30] Read-only file system' in capfd.readouterr().err
