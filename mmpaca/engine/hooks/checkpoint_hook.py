"""mmengine's CheckpointHook, made so that no moment to die is a bad one."""

import hashlib
import io
import logging
import os
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import broadcast_object_list, is_main_process, master_only
from mmengine.fileio import BaseStorageBackend
from mmengine.hooks import CheckpointHook as MMEngineCheckpointHook
from mmengine.logging import print_log
from mmengine.runner import Runner, find_latest_checkpoint
from mmengine.runner.checkpoint import CheckpointLoader

from mmpaca.checkpoint.resuming import newest_whole_checkpoint
from mmpaca.checkpoint.saving import ATOMIC_BACKEND, remove_leftovers, write_atomically
from mmpaca.registry import HOOKS


class _LateRemoval:
    """A file backend that only notes what to remove."""

    def __init__(self, backend: BaseStorageBackend) -> None:
        self.backend = backend
        self.noted: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backend, name)

    def remove(self, path: str) -> None:
        self.noted.append(path)


@HOOKS.register_module()
class AtomicCheckpointHook(MMEngineCheckpointHook):
    """Save checkpoints that are whole, and resume from one that is.

    Takes mmengine's arguments. Three things differ:

    - Checkpoints, published ones and ``last_checkpoint`` are written atomically (local disks;
      another ``backend_args`` stays as it is).
    - What ``max_keep_ckpts`` and ``save_best`` replace is deleted after its successor is safe.
      The disk needs room for one file more.
    - With ``resume=True`` and no ``load_from``, ``last_checkpoint`` is made to name the newest
      whole checkpoint before the Runner looks at it. Broken ones are named in a warning.

    On every rank, before a save to resume from (not that of ``save_best``), it calls
    ``before_checkpoint(runner)`` of all hooks that have it.
    """

    file_backend: _LateRemoval  # since before_train

    def before_run(self, runner: Runner) -> None:
        """Choose the checkpoint to resume from.

        Raises:
            RuntimeError: there are checkpoints, and none of them is whole.
        """
        if not runner.cfg.get('resume') or runner.cfg.get('load_from') or not self._is_local():
            return
        choice: list[str | None] = [None, None]  # the file, the error
        if is_main_process():
            choice = self._choose(runner)
        broadcast_object_list(choice)
        path, error = choice
        if error:
            raise RuntimeError(error)
        if path is not None and find_latest_checkpoint(runner.work_dir) != path:
            raise RuntimeError(
                f'rank 0 resumes from {path}, which {runner.work_dir}/last_checkpoint does not '
                'name here: all machines need the same work_dir, on a shared disk'
            )

    def _choose(self, runner: Runner) -> list[str | None]:
        """The file to resume from or the reason why there is none; writes last_checkpoint."""
        last = find_latest_checkpoint(runner.work_dir)
        folders = [runner.work_dir]
        if self.out_dir is not None:
            folders.append(os.path.join(self.out_dir, Path(runner.work_dir).name))
        path, skipped = newest_whole_checkpoint(folders, self.filename_tmpl, last)
        if path is None and skipped:
            return [
                None,
                f'nothing to resume from, every checkpoint is broken: {"; ".join(skipped)}',
            ]
        if path is None:
            runner.logger.warning(
                f'nothing to resume in {runner.work_dir}: the run begins from the start'
            )
        for fault in skipped:
            runner.logger.warning(f'not resumed from: {fault}')
        if path is not None and path != last:
            write_atomically(Path(runner.work_dir, 'last_checkpoint'), path.encode())
        return [path, None]

    def before_train(self, runner: Runner) -> None:
        """As mmengine's; then delete what a killed save left behind or had yet to delete."""
        if self._is_local():
            self.backend_args = dict(backend=ATOMIC_BACKEND)
        super().before_train(runner)
        self.file_backend = _LateRemoval(self.file_backend)
        hub = runner.message_hub
        # A resumed run goes on as if it had saved that checkpoint itself.
        self.last_ckpt = hub.runtime_info.get('last_ckpt')
        if is_main_process():
            # Names, not paths: the folder may be a copy of another run's.
            for name in hub.runtime_info.get('replaced_ckpts', []):
                self.file_backend.remove(self.file_backend.join_path(self.out_dir, name))
            self._remove_replaced()
            if self._is_local():
                remove_leftovers(self.out_dir)

    def _is_local(self) -> bool:
        return self.file_client_args is None and (
            self.backend_args in (None, dict(backend=ATOMIC_BACKEND))
            and '://' not in str(self.out_dir)
        )

    def _save_checkpoint(self, runner: Runner) -> None:
        super()._save_checkpoint(runner)
        self._remove_replaced()

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        super()._save_best_checkpoint(runner, metrics)
        self._remove_replaced()

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        """Write the checkpoint, then ``last_checkpoint``; what they replace is only noted.

        Replaces mmengine's method, which deletes first and writes ``last_checkpoint`` in place.
        """
        hub = runner.message_hub
        if self.max_keep_ckpts > 0 and (not self.keep_ckpt_ids or self.keep_ckpt_ids[-1] != step):
            if len(self.keep_ckpt_ids) == self.max_keep_ckpts and is_main_process():
                old = self.filename_tmpl.format(self.keep_ckpt_ids[0])
                self.file_backend.remove(self.file_backend.join_path(self.out_dir, old))
            self.keep_ckpt_ids.append(step)  # a full deque drops its first
            hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
        name = self.filename_tmpl.format(step)
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        hub.update_info('last_ckpt', self.last_ckpt)
        # Whoever resumes from this file deletes what there was no time for.
        hub.update_info('replaced_ckpts', [Path(path).name for path in self.file_backend.noted])

        runner.call_hook('before_checkpoint')
        runner.save_checkpoint(
            self.out_dir,
            name,
            self.file_client_args,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        if is_main_process():
            write_atomically(Path(runner.work_dir, 'last_checkpoint'), self.last_ckpt.encode())

    def _remove_replaced(self) -> None:
        """Delete what was noted, but for what has been written anew under the same name.

        A file that cannot be deleted is no reason to end a run.
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
        """Write the ``published_keys`` of a checkpoint, named by the hash of the new file."""
        checkpoint = CheckpointLoader.load_checkpoint(ckpt_path, map_location='cpu')
        with io.BytesIO() as file:
            torch.save({k: v for k, v in checkpoint.items() if k in self.published_keys}, file)
            content = file.getvalue()
        path = f'{os.path.splitext(ckpt_path)[0]}-{hashlib.sha256(content).hexdigest()[:8]}.pth'
        self.file_backend.put(content, path)
        runner.logger.info(f'{ckpt_path} is published to {path}.')
