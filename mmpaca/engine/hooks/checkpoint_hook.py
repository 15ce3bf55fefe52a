"""CheckpointHook with crash-safe writes and resume."""

import contextlib
import hashlib
import io
import logging
import os
import re
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import all_gather_object, broadcast_object_list, is_main_process, master_only
from mmengine.fileio import BaseStorageBackend
from mmengine.hooks import CheckpointHook as MMEngineCheckpointHook
from mmengine.logging import print_log
from mmengine.runner import Runner, find_latest_checkpoint
from mmengine.runner.checkpoint import CheckpointLoader

from mmpaca.checkpoint.resuming import (
    check_digest,
    newest_whole_checkpoint,
    read_last_checkpoint,
)
from mmpaca.checkpoint.saving import (
    ATOMIC_BACKEND,
    DIGEST,
    read_digest,
    record_digest,
    remove_leftovers,
    write_atomically,
)
from mmpaca.checkpoint.schema import ResumeError, nonfinite_tensors
from mmpaca.engine.wrappers import unwrapped
from mmpaca.registry import HOOKS

#: Name of a checkpoint that is saved out of turn.
PREEMPTED = 'preempted_iter_{}.pth'


class _LateRemoval:
    """A file backend that delays removals."""

    def __init__(self, backend: BaseStorageBackend) -> None:
        self.backend = backend
        self.noted: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backend, name)

    def remove(self, path: str) -> None:
        self.noted.append(path)


def _write_last_checkpoint(work_dir: str, path: str) -> None:
    file = Path(work_dir, 'last_checkpoint')
    # Whatever stands there is not written through: a link may name any file of the user.
    if file.is_symlink() or (file.exists() and not file.is_file() and not file.is_dir()):
        file.unlink()
    write_atomically(file, path.encode())


@HOOKS.register_module()
class AtomicCheckpointHook(MMEngineCheckpointHook):
    """Crash-safe checkpoint hook.

    It takes the arguments of mmengine's CheckpointHook and differs in these points:

    - Checkpoints, published checkpoints and ``last_checkpoint`` are written atomically on local
      disks. Other ``backend_args`` are used unchanged.
    - Files replaced because of ``max_keep_ckpts`` and ``save_best`` are deleted after the new
      file is complete. The disk needs space for one more file.
    - With ``resume=True`` and no ``load_from``, ``last_checkpoint`` is set to the newest valid
      checkpoint before the Runner reads it. Broken checkpoints are named in a warning.
    - ``last_checkpoint.sha256`` has the SHA-256 of the file that ``last_checkpoint`` names, in the
      format of sha256sum. It is compared before resuming.
    - NaN or infinite weights, buffers or optimizer states are not saved: training stops with their
      names, and the last checkpoint stays.

    Before a regular save (not that of ``save_best``) it calls ``before_checkpoint(runner)`` of all
    hooks that define it, on every rank.
    """

    file_backend: _LateRemoval  # set in before_train
    saved_iter: int | None = None  # iteration of the last complete checkpoint of this process
    _nonfinite: frozenset[str] = frozenset()

    def before_run(self, runner: Runner) -> None:
        """Choose the checkpoint to resume from, and compare its SHA-256.

        Raises:
            RuntimeError: There are checkpoints, but all of them are broken.
            ResumeError: The checkpoint was changed after it was saved.
        """
        # Of a new model: what is infinite by design, e.g. a mask.
        self._nonfinite = frozenset(nonfinite_tensors(unwrapped(runner.model).state_dict()))
        if not runner.cfg.get('resume') or not self._is_local():
            return
        if file := runner.cfg.get('load_from'):
            self._warn(runner, check_digest(os.path.dirname(file), file))
            return
        choice: list[str | None] = [None, None]  # the file, the error
        if is_main_process():
            choice = self._choose(runner)
        broadcast_object_list(choice)
        path, error = choice
        if error:
            raise ResumeError(error)
        if path is not None and find_latest_checkpoint(runner.work_dir) != path:
            raise RuntimeError(
                f'rank 0 resumes from {path}, but {runner.work_dir}/last_checkpoint on this '
                'machine names another file: all machines need the same work_dir on a shared disk'
            )

    def _choose(self, runner: Runner) -> list[str | None]:
        """Choose the file to resume from, write last_checkpoint; returns [path, error]."""
        last, fault = read_last_checkpoint(runner.work_dir)
        if fault:
            runner.logger.warning(fault)
        folders = [runner.work_dir]
        if self.out_dir is not None:
            folders.append(os.path.join(self.out_dir, Path(runner.work_dir).name))
        path, skipped = newest_whole_checkpoint(folders, self.filename_tmpl, last)
        if path is None and skipped:
            return [
                None,
                f'cannot resume, all checkpoints are broken: {"; ".join(skipped)}',
            ]
        if path is None:
            runner.logger.warning(
                f'no checkpoint to resume from in {runner.work_dir}: training starts from iteration 0'
            )
        for fault in skipped:
            runner.logger.warning(f'skipped broken checkpoint: {fault}')
        if path is not None:
            try:
                self._warn(runner, check_digest(runner.work_dir, path))
            except ResumeError as error:  # raised on every rank
                return [None, str(error)]
        if path is not None and path != last:
            _write_last_checkpoint(runner.work_dir, path)
        return [path, None]

    def _warn(self, runner: Runner, fault: str | None) -> None:
        if fault and is_main_process():
            runner.logger.warning(fault)

    def before_train(self, runner: Runner) -> None:
        """Set up as mmengine does, then delete leftovers of an interrupted save."""
        if self._is_local():
            self.backend_args = dict(backend=ATOMIC_BACKEND)
        super().before_train(runner)
        self.file_backend = _LateRemoval(self.file_backend)
        hub = runner.message_hub
        # A resumed run treats the loaded checkpoint as its own last save.
        self.last_ckpt = hub.runtime_info.get('last_ckpt')
        self._move_best()
        if is_main_process():
            for name in hub.runtime_info.get('replaced_ckpts', []):
                if path := self._own_file(name):
                    self.file_backend.remove(path)
            self._remove_replaced()
            if self._is_local():
                remove_leftovers(self.out_dir)

    def _own_file(self, path: str) -> str | None:
        """The checkpoint of that name in this run's folder; None if it is no name of one.

        The folder may have been moved or copied, and the content of a checkpoint must not decide
        which other files are deleted.
        """
        name = os.path.basename(path)
        pattern = r'\d+'.join(map(re.escape, self.filename_tmpl.split('{}')))
        if not re.fullmatch(rf'(best_[^/]+_)?{pattern}', name):
            return None
        return self.file_backend.join_path(self.out_dir, name)

    def _move_best(self) -> None:
        """Look for the best checkpoints in this run's folder."""
        if path := getattr(self, 'best_ckpt_path', None):
            self.best_ckpt_path = self._own_file(path)
        for key, path in getattr(self, 'best_ckpt_path_dict', {}).items():
            if path:
                self.best_ckpt_path_dict[key] = self._own_file(path)

    def _refuse_nonfinite(self, runner: Runner) -> None:
        """Stop rather than replace a good checkpoint by one with NaN, on every rank.

        Raises:
            FloatingPointError: Names the tensors and the last checkpoint.
        """
        names = nonfinite_tensors(unwrapped(runner.model).state_dict())
        names = [name for name in names if name not in self._nonfinite]
        names += nonfinite_tensors(runner.optim_wrapper.state_dict(), 'optimizer')
        found = [name for part in all_gather_object(names) for name in part]
        if not found:
            return
        found = list(dict.fromkeys(found))
        more = f' and {len(found) - 5} more' if len(found) > 5 else ''
        raise FloatingPointError(
            f'not saved at iteration {runner.iter}: NaN or infinite values in '
            f'{", ".join(found[:5])}{more}. The last checkpoint is '
            f'{self.last_ckpt or "none: no checkpoint was saved before"}. Resume from it with a '
            'lower learning rate, or clip gradients with '
            'optim_wrapper.clip_grad=dict(max_norm=...)'
        )

    def _is_local(self) -> bool:
        return self.file_client_args is None and (
            self.backend_args in (None, dict(backend=ATOMIC_BACKEND))
            and '://' not in str(self.out_dir)
        )

    def _save_checkpoint(self, runner: Runner) -> None:
        self._refuse_nonfinite(runner)
        super()._save_checkpoint(runner)
        self._remove_replaced()

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        scalars = runner.message_hub.log_scalars
        for key in self.key_indicators if self.save_best else ():
            # A name that never was a metric is mmengine's error.
            if key not in metrics and f'val/{key}' in scalars:
                runner.logger.warning(f'save_best is skipped: {key} was not computed')
                return
        if self.save_best:
            self._refuse_nonfinite(runner)
        super()._save_best_checkpoint(runner, metrics)
        self._remove_replaced()

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        """Write the checkpoint, then ``last_checkpoint``; removals are delayed.

        mmengine's method deletes first and overwrites ``last_checkpoint`` in place.
        """
        hub = runner.message_hub
        if self.max_keep_ckpts > 0 and (not self.keep_ckpt_ids or self.keep_ckpt_ids[-1] != step):
            if len(self.keep_ckpt_ids) == self.max_keep_ckpts and is_main_process():
                old = self.filename_tmpl.format(self.keep_ckpt_ids[0])
                self.file_backend.remove(self.file_backend.join_path(self.out_dir, old))
            self.keep_ckpt_ids.append(step)  # a full deque drops its first
            hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
        name = self.filename_tmpl.format(step)
        self._remove_preempted()
        complete = self.save_optimizer and self.save_param_scheduler
        self._save_as(runner, name, meta, self.save_optimizer, self.save_param_scheduler)
        self.saved_iter = meta['iter'] if complete else None

    def save_preempted(self, runner: Runner, iteration: int) -> None:
        """Save everything out of turn; the next regular save deletes the file.

        Args:
            runner: The runner, in an iteration or in a validation; called on every rank.
            iteration: Number of finished iterations.
        """
        self._remove_preempted()
        meta = dict(epoch=runner.epoch, iter=iteration)
        self._save_as(runner, PREEMPTED.format(iteration), meta, True, True)
        self._remove_replaced()

    def _remove_preempted(self) -> None:
        name = Path(self.last_ckpt or '').name
        if name.startswith(PREEMPTED.partition('{')[0]) and is_main_process():
            self.file_backend.remove(self.file_backend.join_path(self.out_dir, name))

    def _save_as(
        self, runner: Runner, name: str, meta: dict, optimizer: bool, schedulers: bool
    ) -> None:
        """Write a checkpoint, then ``last_checkpoint``."""
        hub = runner.message_hub
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        hub.update_info('last_ckpt', self.last_ckpt)
        # A run resumed from this file deletes these if this one is killed before it can.
        hub.update_info('replaced_ckpts', [Path(path).name for path in self.file_backend.noted])

        runner.call_hook('before_checkpoint')
        self._forget_digest(runner, name)
        runner.save_checkpoint(
            self.out_dir,
            name,
            self.file_client_args,
            save_optimizer=optimizer,
            save_param_scheduler=schedulers,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        if is_main_process():
            if self._is_local():
                record_digest(runner.work_dir, self.last_ckpt)
            _write_last_checkpoint(runner.work_dir, self.last_ckpt)

    @master_only
    def _forget_digest(self, runner: Runner, name: str) -> None:
        """Before a file is written anew: if the process dies then, the old digest is not its."""
        with contextlib.suppress(ValueError):
            recorded = read_digest(runner.work_dir)
            if recorded is not None and recorded[1] == name:
                Path(runner.work_dir, DIGEST).unlink()

    def _remove_replaced(self) -> None:
        """Carry out delayed removals, except for files rewritten under the same name.

        Files that cannot be deleted are logged only.
        """
        best = getattr(self, 'best_ckpt_path_dict', {}).values()
        current = {self.last_ckpt, getattr(self, 'best_ckpt_path', None), *best}
        backend = self.file_backend.backend
        while self.file_backend.noted:
            path = self.file_backend.noted.pop()
            if path in current or not backend.isfile(path):
                continue
            try:
                backend.remove(path)
            except OSError as error:
                print_log(f'could not delete {path}: {error}', 'current', logging.WARNING)

    @master_only
    def _publish_model(self, runner: Runner, ckpt_path: str) -> None:
        """Write the ``published_keys`` of a checkpoint; the file name contains its hash."""
        checkpoint = CheckpointLoader.load_checkpoint(ckpt_path, map_location='cpu')
        with io.BytesIO() as file:
            torch.save({k: v for k, v in checkpoint.items() if k in self.published_keys}, file)
            content = file.getvalue()
        path = f'{os.path.splitext(ckpt_path)[0]}-{hashlib.sha256(content).hexdigest()[:8]}.pth'
        self.file_backend.put(content, path)
        runner.logger.info(f'{ckpt_path} was published to {path}.')
