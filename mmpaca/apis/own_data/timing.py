"""Seconds that a config needs on this machine, measured with a few real steps."""

import copy
import time
from collections.abc import Callable, Iterator
from statistics import median

import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from mmengine.runner import Runner

from mmpaca.apis.quiet import quiet

_WARMUP, _STEPS, _IMAGES = 2, 6, 3
_ENOUGH = 20  # seconds of steps


def measure_seconds(config: Config, detections: int) -> tuple[float, float]:
    """Train and evaluate for a few steps and throw the model away.

    Args:
        config: a detector's config, of Faster or Mask R-CNN.
        detections: number per image; with random weights there would be as many as allowed.

    Returns:
        Seconds of a training iteration, its share of loading included, and of the prediction of a
        validation image.
    """
    config = copy.deepcopy(config)
    config.model.test_cfg.rcnn.max_per_img = detections
    with quiet(), DefaultScope.overwrite_default_scope(config.default_scope):
        model = revert_sync_batchnorm(MODELS.build(config.model)).to(get_device())
        model.init_weights()
        optim_wrapper = build_optim_wrapper(model, config.optim_wrapper)
        model.train()
        batches = _batches(config.train_dataloader)

        def train_step(batch: dict) -> None:
            model.train_step(batch, optim_wrapper)

        training: list[float] = []
        while len(training) < _WARMUP + _STEPS and sum(training) < _ENOUGH:
            training.append(_timed(train_step, batches))
        model.eval()
        with torch.no_grad():
            batches = _batches(config.val_dataloader)
            testing = [_timed(model.val_step, batches) for _ in range(1 + _IMAGES)][1:]
    return median(training[_WARMUP:] or training[-1:]), median(testing)


def _batches(dataloader: dict) -> Iterator:
    """Load batches in this process: workers would still be starting."""
    settings = dict(dataloader, num_workers=0, persistent_workers=False)
    loader = Runner.build_dataloader(settings, seed=0)
    while True:
        yield from loader


def _timed(step: Callable[[dict], object], batches: Iterator) -> float:
    begin = time.perf_counter()
    step(next(batches))
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - begin
