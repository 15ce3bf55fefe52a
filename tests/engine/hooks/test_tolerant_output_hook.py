"""A full or read-only disk: outputs are lost with a warning, the run is the same run."""

import errno
import functools
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import toy
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, METRICS
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


@METRICS.register_module('FailingScore')
class FailingScore(toy.Score):
    """It can be computed once only."""

    default_prefix = 'other'

    def compute_metrics(self, results: list) -> dict:
        metrics = super().compute_metrics(results)
        return metrics if metrics['mAP'] == 0 else fail(self)


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


def test_a_picture_that_opencv_could_not_write(tmp_path, capfd):
    """cv2.imwrite returns False, and may leave a part of the file."""
    write = cv2.imwrite

    def half(path: str, image: np.ndarray) -> bool:
        write(path, image)
        os.truncate(path, os.path.getsize(path) // 2)
        return False

    def draw() -> None:
        built = toy.runner(tmp_path / 'run', hooks=(TOLERANT,))
        built.call_hook('before_run')
        for name, imwrite in (('good', write), ('half', half), ('none', lambda *args: False)):
            cv2.imwrite = imwrite
            built.visualizer.add_image(name, np.zeros((9, 9, 3), np.uint8))

    assert toy.forked(draw) == [0]
    printed = capfd.readouterr().out
    says = (
        '{}_0.png: Input/output error: LocalVisBackend.add_image is incomplete, the run continues'
    )
    assert [printed.count(says.format(name)) for name in ('good', 'half', 'none')] == [0, 1, 1]


def test_the_best_checkpoint_of_a_metric_that_is_lost(tmp_path, capfd):
    """The validation of one evaluator fails, that of the other does not."""

    def run() -> None:
        kwargs = dict(end=2, checkpoint=dict(save_best='other/loss', rule='greater'))
        built = toy.runner(tmp_path / 'run', hooks=(TOLERANT,), **kwargs)
        metrics = [dict(type='ToyScore'), dict(type='FailingScore')]
        built.val_loop.evaluator = built.build_evaluator(metrics)
        built.train()

    assert toy.forked(run) == [0]
    printed = capfd.readouterr().out
    assert printed.count('save_best is skipped: other/loss was not computed') == 1
    assert (tmp_path / 'run/best_other_loss_epoch_1.pth').is_file()
    assert toy.last(tmp_path / 'run')['meta']['epoch'] == 2


def test_without_it_the_run_ends(tmp_path, capfd):
    call = functools.partial(train, tmp_path / 'run')
    assert toy.forked(lambda: call(read_only=True)) == [1]
    assert 'OSError: [Errno 30] Read-only file system' in capfd.readouterr().err
