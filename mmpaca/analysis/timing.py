"""Timing models next to each other: one process each, taking turns.

A process of its own gives every model its own allocator and its own peak of memory; taking
turns spreads what else the machine does over all of them.
"""

import argparse
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

DTYPES = ('float32', 'bfloat16')
MODES = ('forward', 'train')
_GEMM_SIZES = (1024, 2048)
_PAUSE = 0.3  # seconds; the threads of a process that has just finished still spin for a while


@dataclass(frozen=True)
class Task:
    """What is timed.

    Attributes:
        mode: one of :data:`MODES`: inference, or forward and backward in training mode.
        shape: batch, height and width of the input.
        dtype: one of :data:`DTYPES`; bfloat16 by autocast.
    """

    mode: str
    shape: tuple[int, int, int]
    dtype: str

    def autocast(self, device: str) -> AbstractContextManager:
        """The context in which a model runs."""
        if self.dtype == 'float32':
            return nullcontext()
        return torch.autocast(torch.device(device).type, torch.bfloat16)


def peak_memory(device: str, run: Callable[[], object]) -> int:
    """Peak of memory during a call above what was in use before, in bytes.

    The allocator's on CUDA; on CPUs the resident set of the process, as Linux counts it.

    Args:
        device: e.g. ``'cpu'`` or ``'cuda:1'``.
        run: what is called, once.
    """
    if torch.device(device).type == 'cuda':
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        return torch.cuda.max_memory_allocated(device) - before
    ctypes.CDLL(None).malloc_trim(0)  # what was freed before shall not hide what is needed now
    Path('/proc/self/clear_refs').write_text('5')  # begins a new peak
    before = _resident('VmRSS')
    run()
    return _resident('VmHWM') - before


def _resident(field: str) -> int:
    (kilobytes,) = re.findall(rf'{field}:\s+(\d+) kB', Path('/proc/self/status').read_text())
    return int(kilobytes) * 1024


def run_backbone(model: nn.Module, task: Task, x: Tensor) -> None:
    """One inference, or one forward and backward pass; returns when the device has done it.

    Args:
        model: a backbone on the device of ``x``.
        task: says which, and in what precision.
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
    if device == 'cuda':
        torch.cuda.synchronize(x.device)


def gemm_flops(task: Task, device: str) -> float:
    """Operations a second of the faster of two square matrix products."""
    rates = []
    for size in _GEMM_SIZES:
        a = torch.rand(size, size, device=device, dtype=getattr(torch, task.dtype))
        a @ a
        start = time.perf_counter()
        (a @ a).sum().item()
        rates.append(2 * size**3 / (time.perf_counter() - start))
    return max(rates)


def add_arguments(parser: argparse.ArgumentParser, repeats: int, warmup: int, out: str) -> None:
    """Give a tool that measures its common options.

    Args:
        parser: of the tool's command line.
        repeats: default of ``--repeats``.
        warmup: default of ``--warmup``.
        out: default of ``--out``.
    """
    device, threads = 'cuda' if torch.cuda.is_available() else 'cpu', torch.get_num_threads()
    parser.add_argument('--repeats', type=int, default=repeats, help='of which the median counts')
    parser.add_argument('--warmup', type=int, default=warmup, help='repeats before, not counted')
    parser.add_argument('--device', type=_usable, default=device, help='here: %(default)s')
    parser.add_argument('--threads', type=int, default=threads, help='of the CPU, per model')
    parser.add_argument('--out', type=Path, default=Path(out), help='file for the numbers')
    parser.add_argument('--plot', type=Path, help='folder for charts')


def _usable(device: str) -> str:
    if device.startswith('cuda') and not torch.cuda.is_available():
        raise argparse.ArgumentTypeError(f'{device}: no GPU is usable here')
    return device


class _Backbone:
    """Answers the requests of :class:`Worker`, in its process."""

    def __init__(self, backbone: dict, device: str, compiled: bool) -> None:
        self.device = device
        self.model = build_backbone(backbone).to(device)
        self.call = self.model
        if compiled:  # of a module torch.compile makes a module
            self.call = cast(nn.Module, torch.compile(self.model, fullgraph=True))

    def _input(self, task: Task) -> Tensor:
        batch, height, width = task.shape
        self.model.train(task.mode == 'train')
        return torch.rand(batch, input_channels(self.model), height, width, device=self.device)

    def time(self, task: Task) -> float:
        x = self._input(task)
        run_backbone(self.call, task, x)  # the others had the caches since its last turn
        start = time.perf_counter()
        run_backbone(self.call, task, x)
        return time.perf_counter() - start

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
    """The machine itself: its peak in matrix products."""

    def __init__(self, device: str) -> None:
        self.device = device

    def time(self, task: Task) -> float:
        return gemm_flops(task, self.device)


def _serve(connection: Connection, make: Callable, args: tuple, threads: int) -> None:
    import mmpaca  # noqa: F401  (registers PaCaViT in this process)

    torch.set_num_threads(threads)
    try:
        servant = make(*args)
        connection.send(None)
        while True:
            method, task = connection.recv()
            connection.send(getattr(servant, method)(task))
    except EOFError:  # nobody asks any more
        pass
    except Exception as error:  # the caller reports it
        connection.send(error)


class Worker:
    """A process with one model, or with the measurement of the machine's peak.

    Args:
        name: for messages.
        backbone: config of the backbone; None for the peak.
        device: e.g. ``'cpu'`` or ``'cuda:1'``.
        threads: CPU threads.
        compiled: run it through ``torch.compile``, without graph breaks.
    """

    def __init__(
        self, name: str, backbone: dict | None, device: str, threads: int, compiled: bool = False
    ) -> None:
        self.name = name
        context = multiprocessing.get_context('spawn')
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
        """Have the other process do something and return its answer.

        Args:
            method: ``'time'`` (seconds), ``'peak'`` (bytes) or ``'cost'`` (of
                :class:`mmpaca.analysis.Cost` all but ``macs_by_module``).
            task: what it is asked about.

        Raises:
            RuntimeError: it failed there.
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
            raise RuntimeError(f'{self.name}: its process died, out of memory perhaps') from None
        if isinstance(answer, Exception):
            raise RuntimeError(f'{self.name}: {answer}') from answer
        return answer


def measure(
    workers: Sequence[Worker], peak: Worker, task: Task, repeats: int, warmup: int
) -> list[dict]:
    """Time one task on all models in turn.

    Args:
        workers: a process per model.
        peak: the one that measures the machine's peak.
        task: what is timed.
        repeats: how often, of which the median counts.
        warmup: how often before, not counted.

    Returns:
        A row per model: seconds (median, min, max), the peak of memory while it ran, the bytes
        saved for the backward pass, multiply-accumulates and the fraction of the machine's peak
        that they make of the median time (a backward pass counts as two forward passes).
    """
    times: dict[str, list[float]] = {worker.name: [] for worker in (*workers, peak)}
    for i in range(warmup + repeats):
        for worker in (peak, *workers):
            time.sleep(_PAUSE)
            answer = worker.ask('time', task)
            if i >= warmup:
                times[worker.name].append(answer)
    flops = statistics.median(times[peak.name])
    rows = []
    for worker in workers:
        seconds = times[worker.name]
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
                peak_bytes=worker.ask('peak', task),
                **cost,
                gemm_flops=flops,
                fraction_of_peak=operations / median / flops,
            )
        )
    return rows
