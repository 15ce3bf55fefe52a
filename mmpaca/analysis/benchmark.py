"""Compare backbones on this machine: time, memory and multiply-accumulates."""

from collections.abc import Iterator, Mapping, Sequence

from terminaltables import AsciiTable  # type: ignore[import-untyped]

from .timing import Task, Worker, measure
from .zoo import parse_backbone


def parse_shape(text: str) -> tuple[int, int, int]:
    """Read ``BATCHxHEIGHTxWIDTH``.

    Raises:
        ValueError: it is something else.
    """
    parts = text.split('x')
    if len(parts) != 3 or not all(part.isdecimal() and int(part) for part in parts):
        raise ValueError(f'--shapes {text!r} is invalid, give BATCHxHEIGHTxWIDTH, e.g. 8x224x224')
    batch, height, width = map(int, parts)
    return batch, height, width


def parse_backbones(texts: Sequence[str]) -> dict[str, dict]:
    """Read backbones, see :func:`~mmpaca.analysis.zoo.parse_backbone`, by name.

    Raises:
        ValueError: one cannot be read, or two have the same name.
    """
    backbones: dict[str, dict] = {}
    origins: dict[str, str] = {}
    for text in texts:
        name, backbone = parse_backbone(text)
        if name in backbones:
            raise ValueError(
                f'{origins[name]} and {text} would both be {name!r} in the table: rename one'
            )
        backbones[name], origins[name] = backbone, text
    return backbones


def run_benchmark(
    backbones: Mapping[str, dict],
    tasks: Sequence[Task],
    device: str,
    threads: int,
    repeats: int,
    warmup: int,
    compiled: bool = False,
) -> Iterator[list[dict]]:
    """Time backbones in processes that take turns.

    Args:
        backbones: configs by name.
        tasks: what is timed.
        device: e.g. ``'cpu'`` or ``'cuda:1'``.
        threads: CPU threads of each process.
        repeats: timed repeats.
        warmup: repeats before them.
        compiled: also time every backbone through ``torch.compile``.

    Yields:
        The rows of a task, see :func:`~mmpaca.analysis.timing.measure`.

    Raises:
        RuntimeError: a backbone cannot be built or run.
    """
    workers = [Worker(name, backbone, device, threads) for name, backbone in backbones.items()]
    if compiled:
        workers += [
            Worker(f'{name} compiled', backbone, device, threads, compiled=True)
            for name, backbone in backbones.items()
        ]
    peak = Worker('machine', None, device, threads)
    for task in tasks:
        yield measure(workers, peak, task, repeats, warmup)
    for worker in (*workers, peak):
        worker.close()


def format_table(rows: Sequence[dict]) -> str:
    """Return the rows of a task as a table; the first model is the reference of ``relative``."""
    task = rows[0]
    shape = 'x'.join(map(str, task['shape']))
    cuda = rows[0]['host_seconds'] is not None
    cells = [['model', 's', 'min', 'max', 'peak MiB', 'saved MiB', 'GMAC', 'of peak', 'relative']]
    if cuda:
        cells[0].append('host s')
    for row in rows:
        cells.append(
            [row['model']]
            + [
                f'{row[key]:.{4 if cuda else 3}f}'
                for key in ('seconds', 'seconds_min', 'seconds_max')
            ]
            + [f'{row[key] / 2**20:.0f}' for key in ('peak_bytes', 'saved_bytes')]
            + [f'{row["macs"] / 1e9:.1f}', f'{row["fraction_of_peak"]:.2f}']
            + [f'{row["seconds"] / rows[0]["seconds"]:.2f}']
            + ([f'{row["host_seconds"]:.4f}'] if cuda else [])
        )
    peak = f'peak {task["gemm_flops"] / 1e9:.0f} GFLOP/s'
    return AsciiTable(cells, f' {task["mode"]} {shape} {task["dtype"]}, {peak} ').table
