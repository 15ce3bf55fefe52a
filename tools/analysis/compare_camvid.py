"""Train segmentors on CamVid, each for the same wall-clock time, and compare them.

Trains the configs in configs/segmentation/camvid one after another, from random weights, on the CPU
or one GPU; the learning rate follows the elapsed time. Tests each on the validation part and writes
camvid.json and the table camvid.md. Called again, it keeps finished runs and repeats an unfinished
one. Run it on a machine that does nothing else.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config, DictAction
from mmengine.dataset import pseudo_collate
from mmengine.runner import Runner

from mmpaca.analysis.budget import TrainingBudget
from mmpaca.analysis.model import model_cost
from mmpaca.apis.configs import config_dir
from mmpaca.checkpoint.saving import write_atomically
from mmpaca.commands.options import at_least
from mmpaca.commands.reporting import report
from mmpaca.compat import require
from mmpaca.models import PaCaSegHead

NAMES = ('paca-head_paca-nano', 'upernet_paca-nano', 'deeplabv3plus_r18', 'segformer_mit-b0')
SHAPE = (360, 480)
TIMED = 20  # images


def configure(args: argparse.Namespace, name: str) -> Config:
    """Return the config of one run."""
    cfg = Config.fromfile(config_dir() / f'segmentation/camvid/{name}_camvid-240x320.py')
    for part in ('train', 'test'):
        cfg[f'{part}_dataloader'].dataset.data_root = str(args.data_root)
    cfg.merge_from_dict(args.cfg_options or {})
    cfg.train_cfg.max_iters = cfg.train_cfg.val_interval = 10**9  # TrainingBudget ends it
    cfg.param_scheduler = None
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None  # tested once, after training
    cfg.randomness.seed = args.seed
    cfg.work_dir = str(args.out / name)
    return cfg


def run(args: argparse.Namespace, name: str) -> None:
    """Train and test one model and write ``result.json`` into its folder.

    Raises:
        FileExistsError: the folder holds a result with another time or seed.
    """
    path = args.out / name / 'result.json'
    settings = dict(minutes=args.minutes, seed=args.seed)
    if path.is_file():
        before = json.loads(path.read_text())
        if {key: before[key] for key in settings} != settings:
            raise FileExistsError(
                f'{path} is the result of {before["minutes"]} minutes with seed {before["seed"]}: '
                'choose another --out, or delete it'
            )
        print(f'{name}: finished before, kept ({path})')
        return
    cfg = configure(args, name)
    runner = Runner.from_cfg(cfg)
    budget = TrainingBudget(60 * args.minutes)
    runner.register_hook(budget)
    runner.train()
    train_seconds = budget.seconds
    metrics = runner.test()
    clusters = test_clusters(runner)
    cost = model_cost(cfg, SHAPE)
    result = dict(
        name=name,
        **settings,
        mIoU=float(metrics['mIoU']),
        accuracy=float(metrics['aAcc']),
        clusters_mIoU=clusters,
        params=cost.params,
        macs=cost.macs,
        seconds_per_image=time_inference(runner),
        iterations=runner.iter,
        epochs=runner.iter * cfg.train_dataloader.batch_size / len(runner.train_dataloader.dataset),
        train_seconds=train_seconds,
        threads=torch.get_num_threads(),
    )
    write_atomically(path, json.dumps(result, indent=1).encode())


def test_clusters(runner: Runner) -> float | None:
    """Return the mIoU of a PaCa head's cluster logits, to which its attention is to add something."""
    head = runner.model.decode_head
    if not isinstance(head, PaCaSegHead):
        return None
    head.forward = lambda inputs: head.logits_and_clusters(inputs)[1]
    metrics = runner.test()
    del head.forward
    return float(metrics['mIoU'])


def time_inference(runner: Runner) -> float:
    """Return the median of the seconds that one image takes, loading excluded."""
    dataset, model = runner.test_dataloader.dataset, runner.model.eval()
    seconds = []
    for i in range(TIMED + 3):  # three to warm up
        batch = pseudo_collate([dataset[i % len(dataset)]])
        with torch.no_grad():
            start = time.perf_counter()
            prediction = model.test_step(batch)[0].pred_sem_seg.data
            prediction.sum().item()  # waits for a GPU
            seconds.append(time.perf_counter() - start)
    return float(np.median(seconds[3:]))


def table(results: list[dict]) -> str:
    """Return a Markdown table, best first."""
    lines = [
        '| model | mIoU | pixel accuracy | params (M) | GMAC | s/image | iterations (epochs) |',
        '|---|---|---|---|---|---|---|',
    ]
    for r in sorted(results, key=lambda r: -r['mIoU']):
        lines.append(
            f'| {r["name"]} | {r["mIoU"]:.2f} | {r["accuracy"]:.2f} | {r["params"] / 1e6:.2f} '
            f'| {r["macs"] / 1e9:.2f} | {r["seconds_per_image"]:.3f} '
            f'| {r["iterations"]} ({r["epochs"]:.0f}) |'
        )
        if r.get('clusters_mIoU') is not None:
            lines.append(f'| its cluster logits | {r["clusters_mIoU"]:.2f} | | | | | |')
    return '\n'.join(lines) + '\n'


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--data-root', type=Path, default=Path('data/camvid'), help='CamVid')
    parser.add_argument('--minutes', type=float, default=60.0, help='training time of each model')
    parser.add_argument('--runs', nargs='+', choices=NAMES, default=NAMES, help='(default: all)')
    parser.add_argument('--seed', type=at_least(0), default=0, help='random seed of every run')
    parser.add_argument('--threads', type=at_least(1), help="CPU threads (default: PyTorch's)")
    parser.add_argument('--out', type=Path, default=Path('work_dirs/camvid'), help='output folder')
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, help='override entries of all configs'
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    require('mmseg')
    if args.minutes <= 0:
        raise ValueError(f'--minutes {args.minutes:g}: give a positive number')
    if not (args.data_root / 'images/train').is_dir():
        raise FileNotFoundError(f'{args.data_root} has no images/train: see --data-root')
    if args.threads:
        torch.set_num_threads(args.threads)
    for name in args.runs:
        run(args, name)
    # Including those of earlier calls.
    finished = [p for n in NAMES if (p := args.out / n / 'result.json').is_file()]
    results = [json.loads(path.read_text()) for path in finished]
    write_atomically(args.out / 'camvid.json', json.dumps(results, indent=1).encode())
    write_atomically(args.out / 'camvid.md', table(results).encode())
    print(f'{args.minutes:g} minutes of training each, validation part, {SHAPE[1]}x{SHAPE[0]}')
    print(table(results))
    print(f'wrote {args.out}/camvid.json and camvid.md')


if __name__ == '__main__':
    sys.exit(report(main, errors=(OSError, ValueError, ImportError)))
