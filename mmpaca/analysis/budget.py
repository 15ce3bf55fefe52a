"""Trainings of equal length, in time or in iterations, to compare models."""

import gc
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmpaca.checkpoint.saving import write_atomically

_WARMUP = 0.03  # share of the budget in which the learning rate rises


class TrainingBudget(Hook):
    """End a training after some time or iterations, with a learning rate that follows what is spent.

    The learning rate rises for 3 % of the budget and then falls linearly to 0: without
    ``param_scheduler``. ``max_iters`` of the config has to be larger than is possible. Validation takes
    no time of the budget.

    Args:
        seconds: of training, or None.
        iters: iterations of training, or None.
        validations: number of validations, after equal parts of the budget; the last one at its end.

    Attributes:
        points: ``seconds``, ``iterations`` and all metrics of each validation.

    Raises:
        ValueError: neither or both of ``seconds`` and ``iters`` are given.
    """

    priority = 'VERY_HIGH'  # ends the loop before the checkpoint hook asks if it is the end

    def __init__(
        self, seconds: float | None = None, iters: int | None = None, validations: int = 0
    ) -> None:
        if (seconds is None) == (iters is None):
            raise ValueError(f'give either seconds or iters, not seconds={seconds}, iters={iters}')
        self.limit, self.iters, self.validations = seconds, iters, validations
        self.points: list[dict[str, Any]] = []

    def before_train(self, runner: Runner) -> None:
        """Start the clock."""
        self._rates = [group['lr'] for group in runner.optim_wrapper.param_groups]
        self._start = time.monotonic()

    def before_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Set the learning rates."""
        spent = self._spent(runner.iter)
        factor = min(1.0, 0.01 + spent / _WARMUP) * max(0.0, 1 - spent)
        for group, rate in zip(runner.optim_wrapper.param_groups, self._rates, strict=True):
            group['lr'] = rate * factor

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Validate or end when it is time."""
        spent = self._spent(runner.iter + 1)
        if spent >= 1:
            runner.train_loop._max_iters = runner.iter + 1
        if self.validations and spent >= min(1, (len(self.points) + 1) / self.validations):
            # The loop takes its interval from here, each time.
            runner.train_loop.dynamic_intervals = [runner.iter + 1]

    def before_val(self, runner: Runner) -> None:
        """Stop the clock."""
        self._stopped = time.monotonic()

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        """Keep the metrics."""
        spent = dict(seconds=self._stopped - self._start, iterations=runner.iter)
        self.points.append({**spent, **(metrics or {})})

    def after_val(self, runner: Runner) -> None:
        """Let the clock go on."""
        self._start += time.monotonic() - self._stopped

    @property
    def seconds(self) -> float:
        """Seconds of training so far."""
        return time.monotonic() - self._start

    def _spent(self, iterations: int) -> float:
        """Share of the budget."""
        return iterations / self.iters if self.iters else self.seconds / (self.limit or 1)


def train_once(
    cfg: Config, budget: TrainingBudget, settings: dict[str, Any], hooks: Sequence[Hook] = ()
) -> dict[str, Any]:
    """Train a config within a budget and write ``result.json`` into its work_dir, unless it is there.

    The config loses its schedule, as the budget is in its place, and its test.

    Args:
        cfg: config of mmdet, with a ``work_dir``.
        budget: of this run.
        settings: stored with the result. Only a result with the same ones is kept.
        hooks: further hooks.

    Returns:
        ``settings`` and the budget's ``points``.

    Raises:
        FileExistsError: the folder holds a result of other settings.
    """
    path = Path(cfg.work_dir) / 'result.json'
    if path.is_file():
        before = json.loads(path.read_text())
        if before['settings'] != settings:
            raise FileExistsError(
                f'{path} is the result of {before["settings"]}, not of {settings}: choose another '
                '--out, or delete it'
            )
        print(f'{path.parent.name}: finished before, kept')
        return before
    cfg.param_scheduler = None
    cfg.train_cfg.max_iters = cfg.train_cfg.val_interval = 10**9
    cfg.test_cfg = cfg.test_dataloader = cfg.test_evaluator = None
    runner = Runner.from_cfg(cfg)
    for hook in (budget, *hooks):
        runner.register_hook(hook)
    runner.train()
    del runner
    gc.collect()  # ends the workers of its loaders: the next run would fork beside them
    result = dict(settings=settings, points=budget.points)
    write_atomically(path, json.dumps(result, indent=1).encode())
    return result
