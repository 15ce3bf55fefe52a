"""Fit how cost grows with resolution: the exponent of time, MACs and memory in the pixels.

Compares PaCa-S with its default clusters and with 100 clusters in all stages, PVTv2-B2 and a
stack of plain-attention ViT blocks on patches of 16 pixels.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
from mmengine.utils import ProgressBar
from terminaltables import AsciiTable

import mmpaca  # noqa: F401  (before mmdet's models)
from mmpaca.analysis import PEERS
from mmpaca.analysis.charts import plot_scaling
from mmpaca.analysis.timing import Task, Worker, measure
from mmpaca.apis.devices import find_device
from mmpaca.apis.outputs import check_out_file
from mmpaca.commands import options
from mmpaca.commands.benchmark import DTYPES, MODES, add_timing_arguments
from mmpaca.commands.reporting import report

_VIT = dict(embed_dims=192, num_layers=4, num_heads=3, feedforward_channels=768)
MODELS = {
    'paca-s': lambda side: PEERS['paca-s'][0],
    'paca-s-m100': lambda side: dict(PEERS['paca-s'][0], num_clusters=100),
    'pvtv2-b2': lambda side: PEERS['pvtv2-b2'][0],
    # Its position embedding is made for one size.
    'plain-vit': lambda side: dict(
        type='mmpretrain.VisionTransformer', arch=_VIT, img_size=side, out_type='featmap'
    ),
}
QUANTITIES = dict(seconds='time', macs='MACs', peak_bytes='peak memory', saved_bytes='saved')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        '--models', nargs='+', choices=MODELS, default=list(MODELS), help='all by default'
    )
    parser.add_argument(
        '--sides',
        nargs='+',
        type=options.at_least(1),
        default=[512, 768, 1024, 1536, 2048],
        help='image sizes in pixels',
    )
    parser.add_argument(
        '--mode', choices=MODES, default='forward', help='train: forward and backward'
    )
    parser.add_argument('--dtype', choices=DTYPES, default='float32', help='half ones by autocast')
    add_timing_arguments(parser, repeats=3, warmup=1, out='work_dirs/scaling.json')
    return parser.parse_args()


def exponent(rows: list[dict], quantity: str) -> float:
    """Slope of the least-squares line through log(quantity) over log(pixels)."""
    pixels = [row['shape'][1] * row['shape'][2] for row in rows]
    return np.polyfit(np.log(pixels), np.log([row[quantity] for row in rows]), 1)[0]


def main() -> None:
    args = parse_args()
    if len(args.sides) < 2:
        raise ValueError(f'--sides {args.sides}: give two sizes or more, to fit a line')
    out = check_out_file(args.out, '--out')
    common = dict(device=find_device(args.device), threads=args.threads or torch.get_num_threads())
    rows = []
    progress = ProgressBar(len(args.sides))
    for side in args.sides:
        peak = Worker('machine', None, **common)
        workers = [Worker(name, MODELS[name](side), **common) for name in args.models]
        task = Task(args.mode, (1, side, side), args.dtype)
        rows += measure(workers, peak, task, args.repeats, args.warmup)
        for worker in (*workers, peak):
            worker.close()
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(rows, indent=1))
        progress.update()
    cells = [['model', *(f'{side}x{side} s' for side in args.sides), *QUANTITIES.values()]]
    for name in args.models:
        own = [row for row in rows if row['model'] == name]
        cells.append(
            [name, *(f'{row["seconds"]:.2f}' for row in own)]
            + [f'{exponent(own, quantity):.3f}' for quantity in QUANTITIES]
        )
    print()
    print(AsciiTable(cells, f' {args.mode} {args.dtype}: seconds, exponents in the pixels ').table)
    print(f'wrote {out}')
    if args.plot:
        Path(args.plot).mkdir(parents=True, exist_ok=True)
        for path in plot_scaling(rows, Path(args.plot)):
            print(f'wrote {path}')


if __name__ == '__main__':
    sys.exit(report(main))
