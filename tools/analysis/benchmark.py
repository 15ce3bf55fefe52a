"""Compare backbones: time, memory and multiply-accumulates, side by side on this machine.

Every model runs in a process of its own; they take turns. The fraction says how much of the
machine's measured peak in matrix products a model makes use of.
"""

import argparse
import json

from mmengine.utils import ProgressBar
from terminaltables import AsciiTable

import mmpaca  # noqa: F401  (before mmdet's models)
from mmpaca.analysis import PEERS, describe
from mmpaca.analysis.charts import plot_accuracy, plot_scaling
from mmpaca.analysis.timing import DTYPES, MODES, Task, Worker, add_arguments, measure

SHAPES = ('8x224x224', '1x640x640', '1x800x1344')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'models',
        nargs='*',
        default=list(PEERS),
        help=f"of {', '.join(PEERS)}, config files, or NAME={{'type': ...}}; default: all names",
    )
    parser.add_argument('--shapes', nargs='+', default=SHAPES, help='as BATCHxHEIGHTxWIDTH')
    parser.add_argument(
        '--dtypes', nargs='+', choices=DTYPES, default=DTYPES, help='bfloat16 by autocast'
    )
    parser.add_argument(
        '--modes', nargs='+', choices=MODES, default=MODES, help='train: forward and backward'
    )
    parser.add_argument(
        '--compile', action='store_true', help='also time every model through torch.compile'
    )
    add_arguments(parser, repeats=7, warmup=2, out='work_dirs/benchmark.json')
    return parser.parse_args()


def parse_shape(text: str) -> tuple[int, int, int]:
    try:
        batch, height, width = (int(part) for part in text.split('x'))
    except ValueError:
        raise SystemExit(f'--shapes: {text!r} is not BATCHxHEIGHTxWIDTH, e.g. 8x224x224') from None
    return batch, height, width


def read_models(texts: list[str]) -> dict[str, dict]:
    """Backbones by name.

    Raises:
        ValueError: one cannot be read, or two have the same name.
    """
    backbones: dict[str, dict] = {}
    origins: dict[str, str] = {}
    for text in texts:
        name, backbone = describe(text)
        if name in backbones:
            raise ValueError(
                f'{origins[name]} and {text} would both be {name!r} in the table: rename one'
            )
        backbones[name], origins[name] = backbone, text
    return backbones


def print_table(rows: list[dict]) -> None:
    task = rows[0]
    shape = 'x'.join(map(str, task['shape']))
    cells = [['model', 's', 'min', 'max', 'peak MiB', 'saved MiB', 'GMAC', 'of peak', 'relative']]
    for row in rows:
        cells.append(
            [row['model']]
            + [f'{row[key]:.3f}' for key in ('seconds', 'seconds_min', 'seconds_max')]
            + [f'{row[key] / 2**20:.0f}' for key in ('peak_bytes', 'saved_bytes')]
            + [f'{row["macs"] / 1e9:.1f}', f'{row["fraction_of_peak"]:.2f}']
            + [f'{row["seconds"] / rows[0]["seconds"]:.2f}']
        )
    peak = f'peak {task["gemm_flops"] / 1e9:.0f} GFLOP/s'
    print(AsciiTable(cells, f' {task["mode"]} {shape} {task["dtype"]}, {peak} ').table, flush=True)


def main() -> None:
    args = parse_args()
    try:
        backbones = read_models(args.models)
    except ValueError as error:
        raise SystemExit(f'error: {error}') from None
    tasks = [
        Task(mode, shape, dtype)
        for shape in map(parse_shape, args.shapes)
        for dtype in args.dtypes
        for mode in args.modes
    ]
    common = dict(device=args.device, threads=args.threads)
    workers = [Worker(name, backbone, **common) for name, backbone in backbones.items()]
    if args.compile:
        workers += [
            Worker(f'{name} compiled', backbone, compiled=True, **common)
            for name, backbone in backbones.items()
        ]
    peak = Worker('machine', None, **common)
    rows = []
    args.out.parent.mkdir(parents=True, exist_ok=True)
    progress = ProgressBar(len(tasks))
    for task in tasks:
        rows += measure(workers, peak, task, args.repeats, args.warmup)
        print()
        print_table(rows[-len(workers) :])
        # After every task: a long run that is broken off keeps what it measured.
        args.out.write_text(json.dumps(rows, indent=1))
        progress.update()
    print(f'\nwritten to {args.out}')
    if args.plot:
        args.plot.mkdir(parents=True, exist_ok=True)
        for path in (*plot_accuracy(rows, args.plot), *plot_scaling(rows, args.plot)):
            print(f'written to {path}')


if __name__ == '__main__':
    main()
