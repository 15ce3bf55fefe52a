"""Save, restore and seed all random number generators used in training."""

import contextlib
import math
import random
from collections.abc import Iterator
from typing import Any

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


def try_rng_state(name: str, state: Any) -> None:
    """Set one of the states from :func:`get_rng_state` in a generator that nobody uses.

    Args:
        name: ``'python'``, ``'numpy'``, ``'torch'`` or ``'cuda'``.
        state: from a checkpoint.

    Raises:
        Exception: it is not a state, see the generators.
    """
    if name == 'python':
        if any(type(number) is not int for number in state[1]):
            raise ValueError('it is not of integers')
        random.Random().setstate(state)
    elif name == 'numpy':
        keys, position, has_gauss, gauss = state
        if keys.dtype != torch.int64 or keys.min() < 0 or keys.max() >= 2**32:
            raise ValueError('its keys are not 32-bit integers')
        if type(position) is not int or not 0 <= position <= 624 or type(has_gauss) is not int:
            raise ValueError(f'position {position}, has_gauss {has_gauss}')
        if not math.isfinite(gauss):
            raise ValueError(f'gauss {gauss}')
        values = keys.cpu().numpy().astype(np.uint32)
        np.random.RandomState().set_state(('MT19937', values, position, has_gauss, gauss))
    elif name == 'torch':
        torch.Generator().set_state(state.cpu())
    else:
        for part in state if isinstance(state, list) else [state]:
            if part.dtype != torch.uint8 or part.numel() != 16:  # seed and offset
                raise ValueError('it is not 16 bytes')


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
