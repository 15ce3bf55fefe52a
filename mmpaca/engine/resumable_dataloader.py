"""Dataloaders that continue where a run stopped, without loading earlier batches."""

from collections.abc import Callable, Iterator
from typing import Any, cast

from mmengine.config import ConfigDict
from mmengine.dist import get_rank, get_world_size
from mmengine.registry import DATA_SAMPLERS
from torch.utils.data import BatchSampler, DataLoader, Sampler

from mmpaca.engine.elastic import ElasticBatchSampler, micro_batches, sampler_of_rank
from mmpaca.engine.rng import Draws

_KEPT = (
    'num_workers', 'collate_fn', 'pin_memory', 'timeout', 'worker_init_fn', 'prefetch_factor',
    'multiprocessing_context', 'generator', 'persistent_workers', 'pin_memory_device',
)  # fmt: skip


class ContinuedBatchSampler:
    """A batch sampler that skips its first ``skip`` batches, once.

    It yields :class:`mmpaca.engine.rng.Draws`: the random numbers of a sample depend on seed, epoch
    and position in the epoch only, not on the worker or on earlier samples.

    Args:
        batch_sampler: An unused batch sampler.
        skip: Number of batches to skip; may exceed one epoch.
        before_first: Called before the first batch.
        place: Rank and number of processes; None for the present ones.
    """

    def __init__(
        self,
        batch_sampler: BatchSampler,
        skip: int = 0,
        before_first: Callable[[], None] | None = None,
        place: tuple[int, int] | None = None,
    ) -> None:
        self.rank: int
        self.world_size: int
        self.rank, self.world_size = place or (get_rank(), get_world_size())
        self.batch_sampler = batch_sampler
        self.sampler: Any = batch_sampler.sampler  # DistSamplerSeedHook sets its epoch
        self.skip = skip
        self.before_first = before_first
        self.passes = 0
        self.drawn = 0  # number of samples on this rank

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
        # Epochs of a sampler without set_epoch differ by their first sample.
        seed, epoch = getattr(self.sampler, 'seed', 0), getattr(self.sampler, 'epoch', start)
        for batch in batches:
            places = range(self.drawn - start, self.drawn - start + len(batch))
            self.drawn += len(batch)
            # Seeded by position: an index that a sampler repeats gets another augmentation.
            yield Draws(batch, [(seed, epoch, i * self.world_size + self.rank) for i in places])

    def next_pass(self) -> None:
        """Count an epoch and set it in the sampler, if supported."""
        self.passes += 1
        if hasattr(self.sampler, 'set_epoch'):
            self.sampler.set_epoch(self.passes)


class ContinuedIterator:
    """Iterator for IterBasedTrainLoop that starts at a given iteration.

    The loop itself skips finished iterations by drawing their batches, which costs nothing here.

    Args:
        dataloader: Result of :func:`continued_dataloader`.
        done: Number of batches that the loop is going to skip.
    """

    def __init__(self, dataloader: DataLoader, done: int) -> None:
        self.dataloader = dataloader
        self.done = done
        self._batches = iter(dataloader)

    def __iter__(self) -> Iterator:
        return self

    def skip_iter(self, num_iters: int) -> None:
        """Skip several batches, as the loop of onedl-mmengine 0.10.12 does."""
        for _ in range(num_iters):
            next(self)

    def __next__(self) -> Any:
        if self.done:
            self.done -= 1
            return None
        try:
            return next(self._batches)
        except StopIteration:
            cast(Any, self.dataloader.batch_sampler).next_pass()
            self._batches = iter(self.dataloader)
            return next(self._batches)


def continued_dataloader(
    config: ConfigDict,
    used: DataLoader,
    sampler_seed: int | None,
    skip: int = 0,
    before_first: Callable[[], None] | None = None,
    started: int | None = None,
) -> DataLoader:
    """Build a dataloader like ``used`` that starts ``skip`` batches later.

    Args:
        config: ``train_dataloader`` of the config; its samplers are built again because those of
            ``used`` may have been consumed.
        used: Dataloader of the train loop; its dataset is kept.
        sampler_seed: Sampler seed of the resumed run.
        skip: Number of batches to skip.
        before_first: Called before the first batch.
        started: Number of processes that the run was started with, if it is not the present one.
    """
    batch_sampler: Any
    if started is None:
        sampler = DATA_SAMPLERS.build(
            config['sampler'], default_args=dict(dataset=used.dataset, seed=sampler_seed)
        )
        batches = _batch_sampler(config, sampler, used)
        batch_sampler = ContinuedBatchSampler(batches, skip, before_first)
    else:
        parts = []
        for rank in range(started):
            sampler = sampler_of_rank(config['sampler'], used.dataset, sampler_seed, rank, started)
            call = before_first if rank == 0 else None
            batches = _batch_sampler(config, sampler, used)
            parts.append(ContinuedBatchSampler(batches, skip, call, (rank, started)))
        count = micro_batches(config['batch_size'], started, get_world_size())
        batch_sampler = ElasticBatchSampler(parts, count)
    return DataLoader(
        used.dataset,
        batch_sampler=batch_sampler,  # torch only requires that a batch is iterable
        **{name: getattr(used, name) for name in _KEPT},
    )


def _batch_sampler(config: ConfigDict, sampler: Sampler, used: DataLoader) -> BatchSampler:
    if config.get('batch_sampler') is None:
        return BatchSampler(sampler, config['batch_size'], used.drop_last)
    return DATA_SAMPLERS.build(
        config['batch_sampler'],
        default_args=dict(sampler=sampler, batch_size=config['batch_size']),
    )
