"""Time models side by side: one process each, taking turns.

A process of its own gives every model its own allocator and its own peak memory; taking turns
spreads the load of other programs over all of them.
"""

import ctypes
import multiprocessing
import re
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from .cost import count_cost
from .model import input_channels
from .zoo import build_backbone

_GEMM_SIZES = (1024, 2048)
_CUDA_GEMM_SIZES = (2048, 4096, 8192)
CUDA_STEPS = 20  # timed together: one step after a pause would find the clocks low
_PAUSE = 0.3  # seconds; the threads of a process that has just finished still spin for a while


@dataclass(frozen=True)
class Task:
    """A measurement.

    Attributes:
        mode: ``'forward'`` for inference, ``'train'`` for forward and backward in training mode.
        shape: batch, height and width of the input.
        dtype: ``'float32'``, or ``'bfloat16'`` or ``'float16'`` by autocast.
    """

    mode: str
    shape: tuple[int, int, int]
    dtype: str

    def autocast(self, device: str) -> AbstractContextManager:
        """Return the autocast context of the precision."""
        if self.dtype == 'float32':
            return nullcontext()
        return torch.autocast(torch.device(device).type, getattr(torch, self.dtype))


def peak_memory(device: str, run: Callable[[], object]) -> int:
    """Return the peak memory of a call in bytes, minus what was in use before.

    That of the allocator on CUDA; on CPUs the resident set size of the process (Linux only).

    Args:
        device: e.g. ``'cpu'`` or ``'cuda:1'``.
        run: function that is called once.
    """
    if torch.device(device).type == 'cuda':
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        return torch.cuda.max_memory_allocated(device) - before
    ctypes.CDLL(None).malloc_trim(0)  # freed memory would hide what the call needs
    Path('/proc/self/clear_refs').write_text('5')  # resets the peak
    before = _resident('VmRSS')
    run()
    return _resident('VmHWM') - before


def _resident(field: str) -> int:
    (kilobytes,) = re.findall(rf'{field}:\s+(\d+) kB', Path('/proc/self/status').read_text())
    return int(kilobytes) * 1024


def run_backbone(model: nn.Module, task: Task, x: Tensor) -> None:
    """Run one inference, or one forward and backward pass; CUDA may still be busy afterwards.

    Args:
        model: backbone on the device of ``x``.
        task: mode and precision.
        x: images, (B, C, H, W).
    """
    device = x.device.type
    if task.mode == 'forward':
        with torch.inference_mode(), task.autocast(device):
            model(x)
    else:
        with task.autocast(device):
            loss = sum(out.float().mean() for out in model(x))
        loss.backward()
        model.zero_grad()


def time_steps(step: Callable[[], object], device: str) -> tuple[float, float]:
    """Time a step.

    Args:
        step: function that runs one step.
        device: on CUDA the mean of :data:`CUDA_STEPS` steps in a row between two events, on CPUs one.

    Returns:
        Seconds of the device, and seconds until Python is free again; the larger one limits a
        training. On CPUs both are the same.
    """
    step()  # other models used the caches, or the GPU was idle, since its last turn
    if torch.device(device).type != 'cuda':
        start = time.perf_counter()
        step()
        seconds = time.perf_counter() - start
        return seconds, seconds
    with torch.cuda.device(device):
        torch.cuda.synchronize()
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start = time.perf_counter()
        first.record()
        for _ in range(CUDA_STEPS):
            step()
        last.record()
        host = time.perf_counter() - start
        last.synchronize()
        return first.elapsed_time(last) / 1000 / CUDA_STEPS, host / CUDA_STEPS


def gemm_flops(task: Task, device: str) -> float:
    """Return the FLOP/s of the fastest of several square matrix products."""
    rates = []
    cuda = torch.device(device).type == 'cuda'
    for size in _CUDA_GEMM_SIZES if cuda else _GEMM_SIZES:
        a = torch.rand(size, size, device=device, dtype=getattr(torch, task.dtype))
        seconds, _ = time_steps(lambda: a @ a, device)  # noqa: B023
        rates.append(2 * size**3 / seconds)
    return max(rates)


class _Backbone:
    """Backbone in the process of a :class:`Worker`."""

    def __init__(self, backbone: dict, device: str, compiled: bool) -> None:
        self.device = device
        self.model = build_backbone(backbone).to(device)
        self.call = self.model
        self.compiled_for: Task | None = None
        self.compiled = compiled

    def _input(self, task: Task) -> Tensor:
        batch, height, width = task.shape
        if self.compiled and task != self.compiled_for:
            # Anew for each task: torch.compile recompiles a function a few times only.
            torch.compiler.reset()
            # torch.compile returns a module for a module
            self.call = cast(nn.Module, torch.compile(self.model, fullgraph=True, dynamic=False))
            self.compiled_for = task
        self.model.train(task.mode == 'train')
        return torch.rand(batch, input_channels(self.model), height, width, device=self.device)

    def time(self, task: Task) -> tuple[float, float]:
        x = self._input(task)
        return time_steps(lambda: run_backbone(self.call, task, x), self.device)

    def peak(self, task: Task) -> int:
        x = self._input(task)
        return peak_memory(self.device, lambda: run_backbone(self.call, task, x))

    def cost(self, task: Task) -> dict:
        x = self._input(task)
        with task.autocast(self.device):
            cost = asdict(count_cost(self.model, lambda: self.model(x)))
        cost.pop('macs_by_module')
        return cost


class _Gemm:
    """Peak of the machine in matrix products."""

    def __init__(self, device: str) -> None:
        self.device = device

    def time(self, task: Task) -> float:
        return gemm_flops(task, self.device)


def _serve(connection: Connection, make: Callable, args: tuple, threads: int) -> None:
    import mmpaca  # noqa: F401  (registers PaCaViT)

    torch.set_num_threads(threads)
    try:
        servant = make(*args)
        connection.send(None)
        while True:
            method, task = connection.recv()
            connection.send(getattr(servant, method)(task))
    except EOFError:  # the caller closed the connection
        pass
    except Exception as error:  # the caller reports it
        connection.send(error)


class Worker:
    """Process that runs one backbone, or measures the machine's peak.

    Args:
        name: name in messages and rows.
        backbone: config of the backbone; None for the peak.
        device: e.g. ``'cpu'`` or ``'cuda:1'``.
        threads: CPU threads.
        compiled: use ``torch.compile`` without graph breaks.

    Raises:
        RuntimeError: the backbone cannot be built.
    """

    def __init__(
        self, name: str, backbone: dict | None, device: str, threads: int, compiled: bool = False
    ) -> None:
        self.name, self.device = name, device
        context = multiprocessing.get_context('forkserver')
        context.set_forkserver_preload([__name__])  # what takes seconds to import, once for all
        self._connection, other = context.Pipe()
        make, args = (
            (_Gemm, (device,)) if backbone is None else (_Backbone, (backbone, device, compiled))
        )
        self._process = context.Process(
            target=_serve, args=(other, make, args, threads), daemon=True
        )
        self._process.start()
        other.close()
        self._receive()

    def ask(self, method: str, task: Task) -> Any:
        """Measure in the other process.

        Args:
            method: ``'time'`` (see :func:`time_steps`; FLOP/s for the machine's peak), ``'peak'`` (bytes) or ``'cost'`` (the fields of
                :class:`mmpaca.analysis.Cost` except ``macs_by_module``).
            task: mode, shape and precision.

        Raises:
            RuntimeError: the measurement failed.
        """
        self._connection.send((method, task))
        return self._receive()

    def close(self) -> None:
        """End the process."""
        self._connection.close()
        self._process.join()

    def _receive(self) -> Any:
        try:
            answer = self._connection.recv()
        except EOFError:
            raise RuntimeError(f'{self.name}: its process died, perhaps out of memory') from None
        if isinstance(answer, Exception):
            raise RuntimeError(f'{self.name}: {answer}') from answer
        return answer


def measure(
    workers: Sequence[Worker], peak: Worker, task: Task, repeats: int, warmup: int
) -> list[dict]:
    """Time one task on all models in turn.

    Args:
        workers: a process per model.
        peak: process that measures the machine's peak.
        task: mode, shape and precision.
        repeats: timed repeats (the median is reported).
        warmup: untimed repeats before them.

    Returns:
        A row per model: seconds (median, minimum, maximum), seconds of the host (None on CPUs), peak
        memory and bytes saved for the backward pass, multiply-accumulates, and the fraction of the machine's peak that the model
        reaches at the median time (a backward pass counts as two forward passes).
    """
    times: dict[str, list] = {worker.name: [] for worker in (*workers, peak)}
    for i in range(warmup + repeats):
        for worker in (peak, *workers):
            time.sleep(_PAUSE)
            answer = worker.ask('time', task)
            if i >= warmup:
                times[worker.name].append(answer)
    flops = statistics.median(times[peak.name])
    cuda = torch.device(peak.device).type == 'cuda'
    rows = []
    for worker in workers:
        seconds, host = zip(*times[worker.name], strict=True)
        cost = worker.ask('cost', task)
        operations = 2 * cost['macs'] * (3 if task.mode == 'train' else 1)
        median = statistics.median(seconds)
        rows.append(
            dict(
                model=worker.name,
                **asdict(task),
                seconds=median,
                seconds_min=min(seconds),
                seconds_max=max(seconds),
                host_seconds=statistics.median(host) if cuda else None,
                peak_bytes=worker.ask('peak', task),
                **cost,
                gemm_flops=flops,
                fraction_of_peak=operations / median / flops,
            )
        )
    return rows
