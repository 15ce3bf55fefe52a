"""Time mmpaca's default hooks against mmdet's stock runtime, on the demo's training.

    tools/analysis/hook_cost.py [CONFIG] [--iters 200] [--repeats 5] [--out FILE]

Trains the same model on the same generated images with mmpaca's `default_hooks` and with mmdet's,
in turns, and prints the median seconds per iteration of both and their ratio. Iterations are timed
from the end of the warm-up to the end of the run, one checkpoint included, in which each runtime
writes in its own way. A second table has the milliseconds per iteration inside each hook. Nothing
else should run on the machine.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.hub import get_config
from mmengine.runner import Runner

import mmpaca.plugin
from mmpaca.apis.configs import find_config
from mmpaca.datasets import write_shapes

OURS, MMDETS = 'mmpaca', 'mmdet'


class TimedRunner(Runner):
    """Runner that adds up the seconds in each hook, while `timing`."""

    timing = False

    def call_hook(self, fn_name: str, **kwargs: Any) -> None:
        """Call all hooks, as mmengine does, and time them."""
        for hook in self._hooks:
            start = time.perf_counter()
            getattr(hook, fn_name, lambda runner, **given: None)(self, **kwargs)
            if self.timing:
                self.spent[type(hook).__name__] += time.perf_counter() - start


class Clock(Hook):
    """Take the time between the end of the warm-up and the end of the training."""

    priority = 'LOWEST'

    def __init__(self, warmup: int) -> None:
        self.warmup = warmup

    def before_train_iter(
        self, runner: TimedRunner, batch_idx: int, data_batch: Any = None
    ) -> None:
        if runner.iter == self.warmup:
            runner.spent, runner.timing = defaultdict(float), True
            self.start = time.perf_counter()

    def after_train(self, runner: TimedRunner) -> None:
        self.seconds = time.perf_counter() - self.start
        runner.timing = False


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', nargs='?', default='mask-rcnn_paca-demo_shapes')
    parser.add_argument('--iters', type=int, default=200, help='iterations timed in each run')
    parser.add_argument('--warmup', type=int, default=20, help='iterations before them')
    parser.add_argument('--repeats', type=int, default=5, help='runs of each kind; medians count')
    parser.add_argument('--images', type=int, default=200, help='generated training images')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/hook_cost.json'))
    return parser.parse_args()


def build(args: argparse.Namespace, kind: str, data: Path, work_dir: Path) -> TimedRunner:
    """Build a runner with one of the two sets of hooks, without validation."""
    cfg = Config.fromfile(find_config(args.config))
    if kind == MMDETS:
        stock = get_config('mmdet::_base_/default_runtime.py').default_hooks
        # The config's own settings, e.g. intervals, stay.
        cfg.default_hooks = {
            key: dict(cfg.default_hooks[key], type=hook['type']) for key, hook in stock.items()
        }
    total = args.warmup + args.iters
    cfg.default_hooks.checkpoint.interval = total
    cfg.train_cfg.max_iters = total
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.test_cfg = cfg.test_dataloader = cfg.test_evaluator = None
    cfg.train_dataloader.dataset.data_root = str(data)
    cfg.work_dir = str(work_dir)
    cfg.experiment_name = cfg.visualizer.name = work_dir.name  # each has a name of its own
    cfg.log_level = 'WARNING'
    return TimedRunner.from_cfg(cfg)


def time_run(args: argparse.Namespace, kind: str, data: Path, work_dir: Path) -> dict[str, float]:
    """Train; return seconds per iteration: ``'total'``, and those in each hook by its name."""
    runner, clock = build(args, kind, data, work_dir), Clock(args.warmup)
    runner.register_hook(clock)
    runner.train()
    spent = {name: seconds / args.iters for name, seconds in runner.spent.items()}
    spent.pop('Clock')
    return dict(spent, total=clock.seconds / args.iters)


def main() -> None:
    args = parse_args()
    mmpaca.plugin.install()
    found: dict[str, list[dict]] = {MMDETS: [], OURS: []}
    with tempfile.TemporaryDirectory() as name:
        data = write_shapes(Path(name) / 'shapes', args.images, 1)
        for i in range(args.repeats):
            for kind, runs in found.items():
                runs.append(time_run(args, kind, data, Path(name) / f'{kind}{i}'))
                print(f'{kind}: {runs[-1]["total"] * 1e3:.1f} ms per iteration', flush=True)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(found, indent=1))
    medians = {
        kind: {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        for kind, runs in found.items()
    }
    ours, stock = medians[OURS]['total'], medians[MMDETS]['total']
    print(
        f'\n| hooks | ms per iteration | ratio |\n|---|---|---|\n| mmdet | {stock * 1e3:.1f} | 1 |'
    )
    print(f'| mmpaca | {ours * 1e3:.1f} | {ours / stock:.3f} |')
    print('\n| hook | mmdet, ms | mmpaca, ms | of an iteration |\n|---|---|---|---|')
    for hook, seconds in sorted(medians[OURS].items(), key=lambda item: -item[1]):
        theirs = medians[MMDETS].get(hook)
        before = '-' if theirs is None else f'{theirs * 1e3:.3f}'
        print(f'| {hook} | {before} | {seconds * 1e3:.3f} | {seconds / ours:.2%} |')
    print(f'wrote {args.out}')


if __name__ == '__main__':
    main()
