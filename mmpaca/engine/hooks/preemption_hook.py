"""Save and exit when a scheduler stops the run."""

import os
import signal
from collections.abc import Callable
from threading import Thread
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from mmengine.dist import get_world_size
from mmengine.hooks import EMAHook, Hook
from mmengine.runner import Runner

from mmpaca.registry import HOOKS

from .checkpoint_hook import AtomicCheckpointHook
from .resume_hook import ExactResumeHook

#: Sent by slurm, Kubernetes and spot machines; by slurm ahead of a time limit; by Ctrl-C.
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


@HOOKS.register_module()
class PreemptionHook(Hook):
    """Save a checkpoint and exit after SIGTERM, SIGUSR1 or SIGINT (Ctrl-C).

    All ranks finish the current iteration, agree that any of them got a signal, and save
    ``preempted_iter_N.pth``, which ``--resume`` continues from. The next regular checkpoint
    replaces it. Nothing is saved if a complete checkpoint of this iteration exists. An interrupted
    validation is repeated by :class:`~mmpaca.engine.ExactResumeHook`. A second SIGINT ends the process at
    once.

    The process exits with status 128 + signal: 143 for SIGTERM, 138 for SIGUSR1, 130 for SIGINT.

    Metrics are computed without interruption, unless the validated weights are already saved:
    save and validate at the same interval if that takes longer than the scheduler's grace period.

    Needs :class:`~mmpaca.engine.AtomicCheckpointHook`. Handlers are installed during training only, and
    only if the Runner runs in the main thread.

    Args:
        enabled: Set False to switch the hook off.
    """

    priority = 'LOWEST'  # after everything that changes the state of an iteration

    def __init__(self, enabled: bool = True) -> None:
        self.enabled = enabled
        self._signal = 0  # received by this process
        self._saver: AtomicCheckpointHook | None = None
        self._group: Any = None  # process group; None for the default one
        self._previous: dict[int, Any] = {}  # signal handlers
        self._pid = os.getpid()
        self._trained = False  # an iteration, in this process
        self._val_checks = 0
        self._can_end = False  # metrics are being computed and there is nothing to save

    def before_train(self, runner: Runner) -> None:
        """Install the signal handlers."""
        if not self.enabled:
            return
        savers = [hook for hook in runner.hooks if isinstance(hook, AtomicCheckpointHook)]
        if not savers:
            runner.logger.warning(
                'signals end the run without a checkpoint: PreemptionHook needs '
                'default_hooks=dict(checkpoint=dict(type="mmpaca.AtomicCheckpointHook"))'
            )
            return
        try:
            self._previous = {number: signal.getsignal(number) for number in SIGNALS}
            self._pid = os.getpid()
            for number in SIGNALS:
                signal.signal(number, self._handle)
        except ValueError:
            runner.logger.warning(
                'signals end the run without a checkpoint: training is not in the main thread'
            )
            return
        self._saver = savers[-1]
        if get_world_size() > 1 and dist.get_backend() != 'gloo':
            self._group = dist.new_group(backend='gloo')  # does not wait for the GPU
        loops = [runner.train_loop, runner.val_loop]
        for loader in (loop.dataloader for loop in loops if loop is not None):
            loader.worker_init_fn = _IgnoreSignals(loader.worker_init_fn)

    def after_train(self, runner: Runner) -> None:
        """Restore the signal handlers."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
        self._saver = None

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Save and exit if any rank got a signal."""
        if self._saver is None:
            return
        self._trained = True
        if self._agreed():
            self._stop(runner, runner.iter + 1)

    def before_val_epoch(self, runner: Runner) -> None:
        """Agree on the number of checks: ranks may have different numbers of batches."""
        if self._saver is not None:
            self._val_checks = -self._largest(-len(runner.val_loop.dataloader))

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Save the state before the validation and exit if any rank got a signal."""
        if self._saver is None or batch_idx >= self._val_checks:
            return
        if self._agreed():
            for hook in runner.hooks:  # back to the state before the validation
                if isinstance(hook, EMAHook):  # the weights
                    hook.after_val_epoch(runner)
                if isinstance(hook, ExactResumeHook):  # the random number generators
                    hook.after_val(runner)
            self._stop(runner, runner.iter)
        if batch_idx == self._val_checks - 1:
            self._can_end = self._is_saved(runner, runner.iter)

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        """Metrics are computed."""
        self._can_end = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:
            return  # a forked DataLoader worker
        if number == signal.SIGINT:  # the second one ends the process, wherever it waits
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        elif self._signal == signal.SIGINT:  # torchrun forwards the second one as SIGTERM
            os._exit(128 + signal.SIGINT)
        self._signal = self._signal or number
        if self._can_end:
            raise SystemExit(128 + self._signal)

    def _agreed(self) -> int:
        """The signal that any rank got, else 0; called by all ranks."""
        self._signal = self._largest(self._signal)
        return self._signal

    def _largest(self, number: int) -> int:
        if get_world_size() == 1:
            return number
        value = torch.tensor(number)
        dist.all_reduce(value, dist.ReduceOp.MAX, group=self._group)
        return int(value)

    def _is_saved(self, runner: Runner, iteration: int) -> bool:
        """True if a checkpoint of this iteration exists: saved, or resumed from."""
        assert self._saver is not None
        return not self._trained or self._saver.saved_iter == iteration

    def _stop(self, runner: Runner, iteration: int) -> None:
        assert self._saver is not None
        name = signal.Signals(self._signal).name
        if not self._is_saved(runner, iteration):
            self._saver.save_preempted(runner, iteration)
        self._largest(0)  # ranks exit together, after the file is complete
        runner.logger.warning(
            f'{name}: training stopped at iteration {iteration}, its state is saved in '
            f'{self._saver.last_ckpt}; continue with --resume'
        )
        raise SystemExit(128 + self._signal)


class _IgnoreSignals:
    """A ``worker_init_fn``: signals sent to a process group reach DataLoader workers, too.

    They are needed until the iteration is finished. They end on a SIGTERM of the training process,
    and within a second of its death.
    """

    def __init__(self, original: Callable[[int], None] | None) -> None:
        self.original = original

    def __call__(self, worker_id: int) -> None:
        if self.original is not None:
            self.original(worker_id)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        if hasattr(signal, 'sigtimedwait'):  # not on macOS
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
            Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()


def _end_with_parent(parent: int) -> None:
    """End with the training process: on its SIGTERM, or where it is gone."""
    while os.getppid() == parent:
        got = signal.sigtimedwait({signal.SIGTERM}, 1.0)
        if got is not None and got.si_pid == parent:
            break
    os._exit(0)
