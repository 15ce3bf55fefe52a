"""The states of all random number generators that training draws from."""

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import torch


def get_rng_state() -> dict:
    """States of Python's, numpy's and torch's generators (CPU and this process's CUDA device).

    Returns:
        Tensors, numbers and tuples only, so that ``torch.load(weights_only=True)`` takes it.
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
    """Put back what :func:`get_rng_state` gave.

    A checkpoint may have been loaded onto a GPU; generators take their states from the CPU.
    """
    random.setstate(state['python'])
    keys, *rest = state['numpy']
    np.random.set_state(('MT19937', keys.cpu().numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state['torch'].cpu())
    if torch.cuda.is_available() and 'cuda' in state:
        here = state['cuda']
        if isinstance(here, list):  # older checkpoints have all devices that were visible
            here = here[min(torch.cuda.current_device(), len(here) - 1)]
        torch.cuda.set_rng_state(here.cpu())


@contextlib.contextmanager
def seeded(*numbers: int) -> Iterator[None]:
    """Draw from generators seeded by these numbers; afterwards they are as they were before.

    For the CPU's generators, which are those that load data.

    Args:
        numbers: any integers >= 0, e.g. seed, epoch and index.

    Example:
        >>> import torch
        >>> from mmpaca.rng import seeded
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


class Draw(int):
    """An index into a data set that knows in which epoch it was drawn, and the sampler's seed."""

    epoch: int
    seed: int

    def __new__(cls, index: int, epoch: int, seed: int) -> 'Draw':
        """An index with its epoch and seed."""
        draw = super().__new__(cls, index)
        draw.epoch, draw.seed = epoch, seed
        return draw

    def __reduce__(self) -> tuple[type['Draw'], tuple[int, int, int]]:  # on the way to a worker
        return Draw, (int(self), self.epoch, self.seed)
