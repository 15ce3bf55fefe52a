"""Results of an evaluation by several processes are sent to the first one, not written to files.

mmengine's default writes them to ``.dist_test`` in the current directory: a full or read-only disk ends the
evaluation, and machines need a directory in common.
"""

import functools
from itertools import chain, zip_longest
from typing import Any

import torch.distributed as dist
from mmengine.dist import collect_results as collect_by_device
from mmengine.dist import get_world_size, is_main_process
from mmengine.evaluator import metric

__all__ = ['gather_results', 'register_gathering']


def gather_results(
    results: list, size: int, device: str = 'cpu', tmpdir: str | None = None
) -> list | None:
    """Gather the results of all ranks, which took the samples in turn, on rank 0.

    Args:
        results: those of this rank.
        size: number of samples; what exceeds it is padding.
        device: only ``'cpu'`` is gathered here, the rest by mmengine.
        tmpdir: a directory that the user set (``collect_dir``), for mmengine.

    Returns:
        All results in the order of the samples; None on other ranks.
    """
    if device != 'cpu' or tmpdir is not None or get_world_size() == 1:
        return collect_by_device(results, size, device, tmpdir)
    parts: list | None = [None] * get_world_size() if is_main_process() else None
    dist.gather_object(results, parts, group=_cpu_group(dist.group.WORLD))
    if parts is None:
        return None
    rows = chain.from_iterable(zip_longest(*parts))
    return [one for one in rows if one is not None][:size]


@functools.lru_cache(maxsize=1)
def _cpu_group(world: dist.ProcessGroup | None) -> Any:
    """A group without the GPU, whose memory the results need not fit."""
    return world if dist.get_backend(world) == 'gloo' else dist.new_group(backend='gloo')


def register_gathering() -> None:
    """Let the metrics of mmengine use it."""
    metric.collect_results = gather_results
