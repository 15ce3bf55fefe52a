"""Batches from where a run stopped, without loading those before."""

from collections.abc import Callable, Iterator
from typing import Any, cast

from mmengine.config import ConfigDict
from mmengine.dist import get_rank, get_world_size
from mmengine.registry import DATA_SAMPLERS
from torch.utils.data import BatchSampler, DataLoader

from mmpaca.engine.rng import Draws

_KEPT = (
    'num_workers', 'collate_fn', 'pin_memory', 'timeout', 'worker_init_fn', 'prefetch_factor',
    'multiprocessing_context', 'generator', 'persistent_workers', 'pin_memory_device',
)  # fmt: skip


class ContinuedBatchSampler:
    """A batch sampler whose first ``skip`` batches are left out, once.

    Its batches are ``mmpaca.engine.rng.Draws``: seed, epoch and place in the epoch alone decide what
    a data set draws for a sample, not the worker that loads it or what was loaded before.

    Args:
        batch_sampler: of the data loader, not yet used.
        skip: how many batches; more than one pass has, where the passes follow each other.
        before_first: called when the first batch is asked for.
    """

    def __init__(
        self,
        batch_sampler: BatchSampler,
        skip: int = 0,
        before_first: Callable[[], None] | None = None,
    ) -> None:
        self.batch_sampler = batch_sampler
        self.sampler: Any = batch_sampler.sampler  # DistSamplerSeedHook sets its epoch
        self.skip = skip
        self.before_first = before_first
        self.passes = 0
        self.drawn = 0  # samples, by this rank

    def __len__(self) -> int:
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[Draws]:
        batches, start = iter(self.batch_sampler), self.drawn
        while self.skip:
            batch = next(batches, None)
            if batch is None:
                self.next_pass()
                batches, start = iter(self.batch_sampler), self.drawn
            else:
                self.skip -= 1
                self.drawn += len(batch)
        if self.before_first is not None:
            self.before_first()
            self.before_first = None
        # Passes of a sampler without epochs differ by where they begin.
        seed, epoch = getattr(self.sampler, 'seed', 0), getattr(self.sampler, 'epoch', start)
        for batch in batches:
            places = range(self.drawn - start, self.drawn - start + len(batch))
            self.drawn += len(batch)
            # The index would give those that a sampler repeats the same augmentation.
            yield Draws(batch, [(seed, epoch, i * get_world_size() + get_rank()) for i in places])

    def next_pass(self) -> None:
        """Count a pass through the data and tell the sampler, where it has epochs."""
        self.passes += 1
        if hasattr(self.sampler, 'set_epoch'):
            self.sampler.set_epoch(self.passes)


class ContinuedIterator:
    """What IterBasedTrainLoop draws from, beginning at an iteration.

    The loop itself skips what is done by drawing it; that costs nothing here.

    Args:
        dataloader: of :func:`continued_dataloader`.
        done: how many batches the loop is going to skip.
    """

    def __init__(self, dataloader: DataLoader, done: int) -> None:
        self.dataloader = dataloader
        self.done = done
        self._batches = iter(dataloader)

    def __iter__(self) -> Iterator:
        return self

    def skip_iter(self, num_iters: int) -> None:
        """Skip batches as newer loops do (onedl-mmengine 0.10.12), at once."""
        for _ in range(num_iters):
            next(self)

    def __next__(self) -> Any:
        if self.done:
            self.done -= 1
            return None
        try:
            return next(self._batches)
        except StopIteration:
            cast(ContinuedBatchSampler, self.dataloader.batch_sampler).next_pass()
            self._batches = iter(self.dataloader)
            return next(self._batches)


def continued_dataloader(
    config: ConfigDict,
    used: DataLoader,
    sampler_seed: int | None,
    skip: int = 0,
    before_first: Callable[[], None] | None = None,
) -> DataLoader:
    """A data loader like ``used`` that begins ``skip`` batches later.

    Args:
        config: ``train_dataloader``, of which the samplers are built anew: nobody knows how far
            those of ``used`` got.
        used: the loop's; its dataset is kept.
        sampler_seed: of the run that is resumed.
        skip: how many batches.
        before_first: called when the first batch is asked for.
    """
    sampler = DATA_SAMPLERS.build(
        config['sampler'], default_args=dict(dataset=used.dataset, seed=sampler_seed)
    )
    if config.get('batch_sampler') is None:
        batch_sampler = BatchSampler(sampler, config['batch_size'], used.drop_last)
    else:
        batch_sampler = DATA_SAMPLERS.build(
            config['batch_sampler'],
            default_args=dict(sampler=sampler, batch_size=config['batch_size']),
        )
    return DataLoader(
        used.dataset,
        # Of a batch torch only asks that one can go through it.
        batch_sampler=cast(Any, ContinuedBatchSampler(batch_sampler, skip, before_first)),
        **{name: getattr(used, name) for name in _KEPT},
    )
