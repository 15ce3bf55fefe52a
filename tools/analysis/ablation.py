"""Run the paper's ablation of the number of clusters and of the layers that compute them.

Trains the variants of one config one after another, each with the same budget and seed, and writes
a table, ablation.json and ablation.png. Called again, it keeps finished runs and resumes an
unfinished one from its last checkpoint.
"""

import argparse
import json
import math
import sys
import tempfile
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from mmengine.config import Config, ConfigDict, DictAction
from mmengine.runner import Runner
from rich.console import Console
from rich.table import Table

from mmpaca.apis.configs import config_dir
from mmpaca.checkpoint.saving import write_atomically
from mmpaca.commands.options import at_least
from mmpaca.commands.reporting import report
from mmpaca.compat import require
from mmpaca.datasets import write_digits

CONFIGS = dict(
    digits='demo/paca-ablation_digits.py', cifar100='classification/paca-s_cifar100_32.py'
)
NAMES = (
    'clusters-2', 'clusters-49', 'clusters-100',
    'block-wise', 'every-second', 'mlp', 'linear', 'teacher',
)  # fmt: skip


def variant(name: str, backbone: ConfigDict) -> dict:
    """Return what a variant of :data:`NAMES` changes in a backbone.

    The number of clusters changes only in stages that have clusters.
    """
    if name.startswith('clusters-'):
        number = int(name.removeprefix('clusters-'))
        return dict(num_clusters=tuple(number if m else 0 for m in backbone.num_clusters))
    if name == 'teacher':
        arch = backbone.arch
        named = isinstance(arch, str)
        return dict(arch=f'{arch}_teacher' if named else dict(arch, teacher_depths=(1, 1, 1, 1)))
    intervals = {'block-wise': 1, 'every-second': 2}
    if name in intervals:
        return dict(cluster_interval=intervals[name])
    return dict(clustering=name)


def configure(args: argparse.Namespace, name: str) -> Config:
    """Return the config of one run."""
    cfg = Config.fromfile(config_dir() / CONFIGS[args.dataset])
    if args.epochs:
        squeeze(cfg, args.epochs)
    cfg.merge_from_dict(args.cfg_options or {})
    cfg.model.backbone.update(variant(name, cfg.model.backbone))
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None  # tested once, after training
    cfg.randomness.seed = args.seed
    cfg.work_dir = str(args.out / name)
    cfg.resume = True
    return cfg


def squeeze(cfg: Config, epochs: int) -> None:
    """Scale a config to another number of epochs, with its schedule in proportion."""
    ratio = epochs / cfg.train_cfg.max_epochs
    cfg.train_cfg.max_epochs = epochs
    for scheduler in cfg.param_scheduler:
        if scheduler.by_epoch:
            for key in ('begin', 'end'):
                if scheduler.get(key):
                    scheduler[key] = max(1, round(scheduler[key] * ratio))


def run(args: argparse.Namespace, name: str) -> None:
    """Train and test one variant and write ``result.json`` into its folder.

    Raises:
        FileExistsError: the folder holds a run with other settings.
    """
    folder = args.out / name
    settings = dict(
        dataset=args.dataset, epochs=args.epochs, seed=args.seed, cfg_options=args.cfg_options
    )
    settings = json.loads(json.dumps(settings))  # as read from the file
    begun = folder / 'settings.json'
    if begun.is_file() and json.loads(begun.read_text()) != settings:
        raise FileExistsError(
            f'{folder} holds a run with {begun.read_text()}, not {json.dumps(settings)}: '
            'choose another --out, or delete it'
        )
    if (folder / 'result.json').is_file():
        print(f'{name}: finished before, kept ({folder}/result.json)')
        return
    write(begun, settings)
    runner = Runner.from_cfg(configure(args, name))
    runner.train()
    top1 = runner.test()['accuracy/top1']
    images = len(runner.test_dataloader.dataset)
    backbone = runner.model.backbone
    result = dict(
        name=name,
        clusters=backbone.num_clusters,
        params=sum(p.numel() for p in backbone.parameters()),
        top1=top1,
        std_error=math.sqrt(top1 * (100 - top1) / images),
        test_images=images,
        epochs=runner.max_epochs,
        # Includes steps before a resume: checkpoints hold their times. The median ignores pauses of
        # the machine.
        step_seconds=float(np.median(runner.message_hub.get_scalar('train/time').data[0])),
    )
    write(folder / 'result.json', result)


def write(path: Path, content: dict | list) -> None:
    """Write JSON atomically."""
    write_atomically(path, json.dumps(content, indent=1).encode())


def print_table(results: list[dict], title: str) -> None:
    """Print a row per result."""
    table = Table('variant', 'clusters', 'params (M)', 'top-1 (%)', 'step (ms)', title=title)
    for r in results:
        table.add_row(
            r['name'],
            ', '.join(map(str, r['clusters'])),
            f'{r["params"] / 1e6:.2f}',
            f'{r["top1"]:.2f} ± {r["std_error"]:.2f}',
            f'{1000 * r["step_seconds"]:.0f}',
        )
    Console(width=100).print(table)


def plot(results: list[dict], title: str, path: Path) -> None:
    """Plot the accuracy of each variant with its standard error."""
    figure = Figure(figsize=(7, 0.5 + 0.4 * len(results)), layout='constrained')
    axes = figure.subplots()
    axes.errorbar(
        [r['top1'] for r in results],
        [r['name'] for r in results],
        xerr=[r['std_error'] for r in results],
        fmt='o',
        capsize=3,
    )
    axes.invert_yaxis()  # the first on top
    axes.set(xlabel='test top-1 (%), with its standard error', title=title)
    axes.grid(axis='x', alpha=0.3)
    figure.savefig(path, dpi=150)


def make_digits(data_root: Path) -> None:
    """Write the digits; the folder appears when it is complete."""
    data_root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=data_root.parent) as folder:
        whole = Path(folder, data_root.name)
        write_digits(whole)
        whole.rename(data_root)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        '--dataset', choices=CONFIGS, required=True, help='digits are generated if missing'
    )
    parser.add_argument('--runs', nargs='+', choices=NAMES, default=NAMES, help='(default: all)')
    parser.add_argument(
        '--epochs', type=at_least(1), help="epochs of a run (default: the config's)"
    )
    parser.add_argument('--seed', type=at_least(0), default=0, help='random seed of every run')
    parser.add_argument(
        '--out', type=Path, help='output folder (default: work_dirs/ablation_DATASET)'
    )
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, help='override entries of the config'
    )
    args = parser.parse_args()
    args.out = args.out or Path('work_dirs', f'ablation_{args.dataset}')
    return args


def main() -> None:
    args = parse_args()
    require('mmpretrain')
    if args.dataset == 'digits':
        data_root = Path(configure(args, NAMES[0]).train_dataloader.dataset.data_root)
        if not data_root.is_dir():
            make_digits(data_root)
            print(f'wrote {data_root}')
    else:
        root = Path(configure(args, NAMES[0]).train_dataloader.dataset.data_root)
        if not (root / 'cifar-100-python/train').is_file():
            raise FileNotFoundError(
                f'{root} holds no CIFAR-100: unpack cifar-100-python.tar.gz there'
            )
    for name in args.runs:
        run(args, name)
    # Including those of earlier calls.
    finished = [p for n in NAMES if (p := args.out / n / 'result.json').is_file()]
    results = [json.loads(path.read_text()) for path in finished]
    first = results[0]
    title = f'{args.dataset}: {first["epochs"]} epochs, {first["test_images"]} test images'
    write(args.out / 'ablation.json', results)
    plot(results, title, args.out / 'ablation.png')
    print_table(results, title)
    print(f'wrote {args.out}/ablation.json and ablation.png')


if __name__ == '__main__':
    sys.exit(report(main, errors=(OSError, ImportError)))
