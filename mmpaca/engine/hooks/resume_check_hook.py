"""Check a checkpoint before a run resumes from it."""

from collections.abc import Mapping
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import EMAHook, Hook
from mmengine.model import BaseAveragedModel
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner, find_latest_checkpoint

from mmpaca.checkpoint.optimizer_schema import check_optimizer
from mmpaca.checkpoint.scheduler_schema import check_schedulers
from mmpaca.checkpoint.schema import (
    NEW_RUN,
    ResumeError,
    SchemaError,
    check_mapping,
    check_message_hub,
    check_meta,
    check_tensors,
    check_whole,
    needed,
)
from mmpaca.engine.run_state import check_run_state
from mmpaca.engine.wrappers import unwrapped
from mmpaca.registry import HOOKS

from .resume_hook import ExactResumeHook


@HOOKS.register_module()
class ResumeCheckHook(Hook):
    """Compare the entire checkpoint with the run before anything of it is applied.

    Names, types, shapes and ranges of weights, optimizer, schedulers, message hub, place in the
    run and random states must be those that this run saves. mmengine starts with a new optimizer
    or new schedulers where the checkpoint has none, and continues with NaN.

    A config that was changed since (``lr``, ``weight_decay``, the schedule) is not an error: the
    run continues with the values of the checkpoint, and one warning lists what differs.

    Args:
        enabled: Set False to switch the hook off.
    """

    priority = 'HIGHEST'  # before hooks that apply their part

    def __init__(self, enabled: bool = True) -> None:
        self.enabled = enabled

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Check on every rank.

        Raises:
            ResumeError: Names the file, the entry, what it holds and the remedy.
        """
        built = isinstance(getattr(runner, 'optim_wrapper', None), OptimWrapper | OptimWrapperDict)
        if not (self.enabled and built and runner._resume):
            return
        file = runner._load_from or find_latest_checkpoint(runner.work_dir)
        try:
            differences = self._check(runner, checkpoint)
        except SchemaError as error:
            raise ResumeError(f'cannot resume {file}: {error}') from None
        if differences and is_main_process():
            runner.logger.warning(
                f'{file} differs from the config: {"; ".join(differences)}. Optimizer and '
                f"schedulers continue with the checkpoint's values; to use the config's, {NEW_RUN}"
            )

    def _check(self, runner: Runner, checkpoint: dict) -> list[str]:
        check_mapping(checkpoint, 'the checkpoint')
        meta = check_meta(checkpoint)
        _check_place(runner, meta)
        check_message_hub(checkpoint, meta)
        differences = []
        if any(isinstance(hook, ExactResumeHook) and hook.enabled for hook in runner.hooks):
            differences += check_run_state(checkpoint, runner)
        weights = unwrapped(runner.model).state_dict()
        check_tensors(needed(checkpoint, 'state_dict'), weights, 'state_dict', 'the model')
        _check_average(runner, checkpoint)
        differences += check_optimizer(checkpoint, runner.optim_wrapper, meta['iter'])
        return differences + check_schedulers(checkpoint, runner.param_schedulers, meta)


def _check_place(runner: Runner, meta: Mapping[str, Any]) -> None:
    loop = runner.train_loop
    if type(loop) is EpochBasedTrainLoop:
        _check_end(meta['epoch'], 'epoch', loop.max_epochs)
    elif type(loop) is IterBasedTrainLoop:
        _check_end(meta['iter'], 'iter', loop.max_iters)
        check_whole(meta['epoch'], 'meta.epoch', most=1)  # the loop is one epoch


def _check_end(place: int, unit: str, end: int) -> None:
    if place > end:
        raise SchemaError(
            f'meta.{unit}',
            f'is {place}, after the end of this run: train_cfg.max_{unit}s={end}',
            f'Increase train_cfg.max_{unit}s, or resume from another checkpoint',
        )


def _check_average(runner: Runner, checkpoint: dict) -> None:
    """The weights that EMAHook averages."""
    hooks = [hook for hook in runner.hooks if isinstance(hook, EMAHook)]
    if not hooks:
        if 'ema_state_dict' in checkpoint:
            raise SchemaError(
                'ema_state_dict',
                'is there, but this run has no EMAHook',
                f'Add the EMAHook of the checkpoint to custom_hooks, or {NEW_RUN}',
            )
        return
    ours = hooks[0].ema_model.state_dict()
    average = needed(checkpoint, 'ema_state_dict')
    check_tensors(average, ours, 'ema_state_dict', 'the averaged model')
    if 'steps' in ours:
        done = checkpoint['meta']['iter']
        steps = check_whole(average['steps'].item(), 'ema_state_dict.steps', most=done)
        expected = _averaged_iterations(hooks[0], done)
        if expected not in (None, steps):
            raise SchemaError(
                'ema_state_dict.steps',
                f'is {steps}, expected {expected} for meta.iter={done} and '
                f'begin_iter={hooks[0].begin_iter} of {type(hooks[0]).__name__}',
            )


def _averaged_iterations(hook: EMAHook, done: int) -> int | None:
    """Number of iterations that a hook has averaged after ``done``; None if it cannot be told.

    Epochs may have had other lengths before, and a class of one's own may count in another way.
    """
    counts = type(hook).after_train_iter is EMAHook.after_train_iter
    counts &= type(hook)._ema_started is EMAHook._ema_started
    counts &= type(hook.ema_model).update_parameters is BaseAveragedModel.update_parameters
    if hook.enabled_by_epoch or not counts:
        return None
    return max(0, done - max(0, hook.begin_iter - 1))
