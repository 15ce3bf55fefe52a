"""Save, restore and seed all random number generators used in training."""

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import torch


def get_rng_state() -> dict:
    """Get the states of Python's, NumPy's and torch's generators (CPU and current CUDA device).

    Returns:
        Only tensors, numbers and tuples, so that ``torch.load(weights_only=True)`` accepts it.
    """
    numbers = np.random.get_state(legacy=False)
    keys = torch.from_numpy(numbers['state']['key'].astype(np.int64))
    state = dict(
        python=random.getstate(),
        numpy=(keys, numbers['state']['pos'], numbers['has_gauss'], numbers['gauss']),
        torch=torch.get_rng_state(),
    )
    if torch.cuda.is_available():
        state['cuda'] = torch.cuda.get_rng_state()
    return state


def set_rng_state(state: dict) -> None:
    """Restore the states from :func:`get_rng_state`, on any device."""
    random.setstate(state['python'])
    keys, *rest = state['numpy']
    np.random.set_state(('MT19937', keys.cpu().numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state['torch'].cpu())
    if torch.cuda.is_available() and 'cuda' in state:
        here = state['cuda']
        if isinstance(here, list):  # older checkpoints store all visible devices
            here = here[min(torch.cuda.current_device(), len(here) - 1)]
        torch.cuda.set_rng_state(here.cpu())


@contextlib.contextmanager
def seeded(*numbers: int) -> Iterator[None]:
    """Seed the CPU generators, which data pipelines use, and restore them at the end.

    Args:
        numbers: Integers >= 0, e.g. seed, epoch and position in the epoch.

    Example:
        >>> import torch
        >>> from mmpaca.engine.rng import seeded
        >>> draws = []
        >>> for epoch in (0, 0, 1):
        ...     with seeded(3, epoch):
        ...         draws.append(float(torch.rand(1)))
        >>> draws[0] == draws[1], draws[0] == draws[2]
        (True, False)
    """
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    seeds = np.random.SeedSequence(numbers).generate_state(3)
    random.seed(int(seeds[0]))
    np.random.seed(seeds[1])
    torch.default_generator.manual_seed(int(seeds[2]))
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])


class Draws:
    """Batch indices that seed all RNGs before each sample is loaded.

    While iterating, the generators are :func:`seeded` for the current index until the next one is
    requested. This works with any dataset and dataset wrapper.

    Args:
        indices: Dataset indices.
        seeds: For each index, the numbers that seed its sample.
    """

    def __init__(self, indices: list, seeds: list[tuple[int, ...]]) -> None:
        self.indices, self.seeds = indices, seeds

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator:
        for index, numbers in zip(self.indices, self.seeds, strict=True):
            with seeded(*numbers):
                yield index
