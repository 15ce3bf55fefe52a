"""Time backbones side by side on this machine, with their memory and multiply-accumulates.

Every model runs in a process of its own; they take turns. "of peak" is the fraction of the
machine's measured peak in matrix products that a model uses.
"""

import argparse

from . import options

HELP = 'time backbones side by side'
EXAMPLE = 'mmpaca benchmark paca-t swin-t --shapes 1x800x1344 --modes forward'
SHAPES = ('8x224x224', '1x640x640', '1x800x1344')
DTYPES = ('float32', 'bfloat16', 'float16')
MODES = ('forward', 'train')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the models and what to time."""
    models = parser.add_argument(
        'models',
        metavar='MODELS',
        nargs='*',
        help='paca-t, paca-s, paca-b, resnet-50, swin-t, convnext-t, pvtv2-b1, pvtv2-b2 (default: '
        "all of these), a CONFIG, or NAME={'type': ...}",
    )
    options.completed(models, options.FILE)
    parser.add_argument(
        '--shapes',
        nargs='+',
        metavar='BxHxW',
        default=SHAPES,
        help=f'batch, height and width (default: {" ".join(SHAPES)})',
    )
    parser.add_argument(
        '--dtypes',
        nargs='+',
        choices=DTYPES,
        metavar='DTYPE',
        default=DTYPES[:2],
        help='float32, bfloat16, float16; half ones by autocast (default: float32 bfloat16)',
    )
    parser.add_argument(
        '--modes',
        nargs='+',
        choices=MODES,
        default=MODES,
        help='train: forward and backward (default: both)',
    )
    parser.add_argument('--compile', action='store_true', help='also time torch.compile')
    add_timing_arguments(parser, repeats=7, warmup=2, out='work_dirs/benchmark.json')


def add_timing_arguments(
    parser: argparse.ArgumentParser, repeats: int, warmup: int, out: str
) -> None:
    """Add what all tools that measure have in common.

    Args:
        parser: parser of the tool.
        repeats: default of ``--repeats``.
        warmup: default of ``--warmup``.
        out: default of ``--out``.
    """
    parser.add_argument(
        '--repeats',
        type=options.at_least(1),
        metavar='N',
        default=repeats,
        help='timed repeats (the median is reported)',
    )
    parser.add_argument(
        '--warmup',
        type=options.at_least(0),
        metavar='N',
        default=warmup,
        help='untimed repeats before them',
    )
    options.add_device(parser)
    parser.add_argument(
        '--threads',
        type=options.at_least(1),
        metavar='N',
        help='CPU threads of a model (default: all cores)',
    )
    file = parser.add_argument('--out', metavar='FILE', default=out, help='JSON file to write')
    folder = parser.add_argument('--plot', metavar='DIR', help='write charts into this folder')
    options.completed(file, options.FILE)
    options.completed(folder, options.FOLDER)


def run(args: argparse.Namespace) -> None:
    """Measure, print a table per task and write all rows."""
    from mmpaca import plugin

    plugin.install()
    import json
    from itertools import product

    import torch

    from mmpaca.analysis.benchmark import format_table, parse_backbones, parse_shape, run_benchmark
    from mmpaca.analysis.charts import plot_accuracy, plot_scaling
    from mmpaca.analysis.timing import Task
    from mmpaca.analysis.zoo import PEERS
    from mmpaca.apis.configs import find_config
    from mmpaca.apis.devices import find_device
    from mmpaca.apis.outputs import check_out_dir, check_out_file

    shapes = [parse_shape(text) for text in args.shapes]
    tasks = [Task(m, s, d) for s, d, m in product(shapes, args.dtypes, args.modes)]
    models = [m if m in PEERS or '=' in m else find_config(m) for m in args.models or PEERS]
    backbones = parse_backbones(models)
    device = find_device(args.device)
    out = check_out_file(args.out, '--out')
    plots = None if args.plot is None else check_out_dir(args.plot, '--plot')
    threads = args.threads or torch.get_num_threads()
    out.parent.mkdir(parents=True, exist_ok=True)
    rows: list[dict] = []
    measured = run_benchmark(
        backbones, tasks, device, threads, args.repeats, args.warmup, args.compile
    )
    for number, found in enumerate(measured, start=1):
        print(f'{format_table(found)}\n{number} of {len(tasks)}', flush=True)
        rows += found
        # After every task: an interrupted run keeps what it measured.
        out.write_text(json.dumps(rows, indent=1))
    print(f'wrote {out}')
    if plots is not None:
        plots.mkdir(parents=True, exist_ok=True)
        for path in (*plot_accuracy(rows, plots), *plot_scaling(rows, plots)):
            print(f'wrote {path}')
