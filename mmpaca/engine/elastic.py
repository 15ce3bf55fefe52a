"""Resume a run with another number of processes: same global batch, same samples.

The samples of an iteration are those of the processes that the run was started with. The present
processes share them evenly. A process that gets more than the configured batch size splits them
into micro-batches, whose gradients are accumulated within the iteration. Iterations, epochs, the
learning rate and its schedule stay as they were.
"""

import math
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from mmengine.config import ConfigDict
from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmengine.dist import get_rank, get_world_size
from mmengine.optim import OptimWrapper
from mmengine.registry import DATA_SAMPLERS
from mmengine.runner import Runner
from torch.utils.data import Dataset, Sampler

from mmpaca.engine.rng import Draws, set_rng_state


def micro_batches(batch_size: int, started: int, processes: int) -> int:
    """Number of micro-batches of a process and iteration.

    Args:
        batch_size: Samples per process as configured; no micro-batch is larger.
        started: Number of processes that the run was started with.
        processes: Number of processes now.

    Raises:
        ValueError: The processes cannot share the global batch evenly.
    """
    total = batch_size * started
    if total % processes:
        raise ValueError(
            f'--elastic: {processes} processes cannot share the global batch of {total} images '
            f'({started} x {batch_size}) evenly: use a number of processes that divides {total}'
        )
    share = total // processes
    return next(k for k in range(1, share + 1) if share % k == 0 and share // k <= batch_size)


def sampler_of_rank(
    config: ConfigDict, dataset: Dataset, seed: int | None, rank: int, started: int
) -> Sampler:
    """Build the sampler of one of the processes that the run was started with.

    Raises:
        TypeError: The sampler is neither DefaultSampler nor InfiniteSampler.
    """
    sampler = DATA_SAMPLERS.build(config, default_args=dict(dataset=dataset, seed=seed))
    if type(sampler) not in (DefaultSampler, InfiniteSampler):
        raise TypeError(
            f'--elastic: {type(sampler).__name__} is not supported, only DefaultSampler and '
            f'InfiniteSampler: resume with {started} processes'
        )
    sampler.rank, sampler.world_size = rank, started
    if isinstance(sampler, DefaultSampler):  # as it computes them itself
        size = len(sampler.dataset)
        padded = math.ceil(size / started)
        sampler.num_samples = padded if sampler.round_up else math.ceil((size - rank) / started)
        sampler.total_size = padded * started if sampler.round_up else size
    return sampler


class ElasticBatchSampler:
    """This process's share of the global batches.

    Args:
        parts: One :class:`mmpaca.engine.resumable_dataloader.ContinuedBatchSampler` for each
            process that the run was started with.
        count: Number of micro-batches of this process.
    """

    def __init__(self, parts: list, count: int) -> None:
        self.parts = parts
        self.count = count
        self.sampler = self  # DistSamplerSeedHook sets its epoch
        self.seed, self.dataset = parts[0].sampler.seed, parts[0].sampler.dataset

    def __len__(self) -> int:
        return len(self.parts[0])

    def __iter__(self) -> Iterator[Draws]:
        for batches in zip(*self.parts, strict=True):
            indices = [index for batch in batches for index in batch.indices]
            seeds = [seed for batch in batches for seed in batch.seeds]
            # Only the last, smaller batch of an epoch may need padding, as DefaultSampler does.
            missing = -len(indices) % (get_world_size() * self.count)
            places = [i % len(indices) for i in range(len(indices) + missing)]
            share = len(places) // get_world_size()
            mine = places[get_rank() * share :][:share]
            yield Draws([indices[i] for i in mine], [seeds[i] for i in mine])

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of samplers that have one."""
        for part in self.parts:
            if hasattr(part.sampler, 'set_epoch'):
                part.sampler.set_epoch(epoch)

    def next_pass(self) -> None:
        """Count an epoch."""
        for part in self.parts:
            part.next_pass()


def accumulate(runner: Runner, count: int) -> None:
    """Let each training iteration of a runner accumulate the gradients of micro-batches.

    Raises:
        TypeError: There are several optimizers.
    """
    if count == 1:
        return
    wrapper, loop = runner.optim_wrapper, runner.train_loop
    if not isinstance(wrapper, OptimWrapper):
        raise TypeError('--elastic supports one optimizer: resume with as many processes as before')
    wrapper._accumulative_counts *= count
    wrapper.initialize_count_status(runner.model, loop.iter * count, loop.max_iters * count)
    step: Callable[..., dict] = runner.model.train_step

    def train_step(data: Any, optim_wrapper: OptimWrapper) -> dict:
        logs = [step(part, optim_wrapper=optim_wrapper) for part in split(data, count)]
        return {key: sum(log[key] for log in logs) / count for key in logs[0]}

    runner.model.train_step = train_step


def split(data: Any, count: int) -> list:
    """Split a collated batch (nested dicts of lists and tensors) into equal parts."""
    if isinstance(data, dict):
        parts = {key: split(value, count) for key, value in data.items()}
        return [{key: value[i] for key, value in parts.items()} for i in range(count)]
    size = len(data) // count
    return [data[i * size : (i + 1) * size] for i in range(count)]


def restore_rng(states: list[dict]) -> None:
    """Restore this rank's generators; a rank that the saved run had not gets a new stream."""
    rank = get_rank()
    set_rng_state(states[rank % len(states)])
    if rank >= len(states):
        seed = int(torch.randint(2**31, ())) + rank
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
