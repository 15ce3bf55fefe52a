"""Train under random SIGKILLs and full disks, and compare with a run that was left in peace.

Data are generated, the model is the demo's. Every restart is `tools/train.py CONFIG --resume`.
Prints a table: restarts survived, iterations lost, final AP of both runs, whether their weights are
the same, and how much memory the undisturbed run gained. Ends with status 1 where a restart failed
or the weights differ.
"""

import argparse
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

import mmpaca  # noqa: F401
from mmpaca.apis.configs import config_dir
from mmpaca.checkpoint import load_from_local
from mmpaca.datasets import write_shapes

TRAIN = Path(__file__).resolve().parent.parent / 'train.py'
POLL = 0.2  # seconds
WARM_UP = 0.1  # of a run, before memory is measured


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        '--work-dir', type=Path, default=Path('work_dirs/soak'), help='folder of data and runs'
    )
    parser.add_argument('--iters', type=int, default=2000, help='of training')
    parser.add_argument('--interval', type=int, default=50, help='iterations between checkpoints')
    parser.add_argument('--batch-size', type=int, default=2, help='of training')
    parser.add_argument('--workers', type=int, default=0, help='that load images')
    parser.add_argument(
        '--images', type=int, default=200, help='to train on; a quarter more to test'
    )
    parser.add_argument('--kills', type=int, default=20, help='SIGKILLs before it is left in peace')
    parser.add_argument('--full', type=int, default=5, help='how many runs find the disk full')
    parser.add_argument('--seed', type=int, default=0, help='of when it happens')
    return parser.parse_args()


class Attempt:
    """One process of training.

    Args:
        args: of this tool.
        work_dir: of the run.
        max_file: largest file, in bytes, that it can write; None for any. What lies beyond fails
            in the middle of a write, as on a full disk.
    """

    def __init__(
        self, args: argparse.Namespace, work_dir: Path, max_file: int | None = None
    ) -> None:
        def limit() -> None:
            if max_file is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (max_file, max_file))

        work_dir.mkdir(parents=True, exist_ok=True)
        self.work_dir = work_dir
        self.log = work_dir / f'attempt_{len(list(work_dir.glob("attempt_*"))):03d}.txt'
        config = config_dir() / 'demo/mask-rcnn_paca-demo_shapes.py'
        with self.log.open('w') as log:
            self.process = subprocess.Popen(
                [sys.executable, TRAIN, config, '--resume', '--work-dir', work_dir, *options(args)],
                stdout=log,
                stderr=log,
                start_new_session=True,  # so that workers can be killed with it
                preexec_fn=limit,
            )

    def wait(self, until: int | None = None, at: Callable[[int], None] = lambda _: None) -> int:
        """Wait for the end, or kill it at an iteration; the last iteration that it logged."""
        while self.process.poll() is None:
            time.sleep(POLL)
            at(self.last())
            if until is not None and self.last() >= until:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
        return self.last()

    def last(self) -> int:
        """The last iteration in the newest log of the run."""
        logs = sorted(self.work_dir.glob('*/vis_data/*_*.json'), key=os.path.getmtime)
        lines = _lines(logs[-1]) if logs else []
        return json.loads(lines[-1]).get('step', 0) if lines else 0


def options(args: argparse.Namespace) -> list[str]:
    """One process trains, so that runs can be compared bit for bit."""
    data = args.work_dir.resolve() / 'shapes'
    values = {f'{split}_dataloader.dataset.data_root': data for split in ('train', 'val', 'test')}
    values |= {f'{s}_evaluator.ann_file': data / 'annotations/val.json' for s in ('val', 'test')}
    values |= {
        f'{split}_dataloader.num_workers': args.workers for split in ('train', 'val', 'test')
    }
    values |= {
        'train_dataloader.persistent_workers': args.workers > 0,
        'train_dataloader.batch_size': args.batch_size,
        'train_cfg.max_iters': args.iters,
        'train_cfg.val_interval': args.iters,
        'param_scheduler.1.end': max(args.iters, 100),  # after the warm-up
        'default_hooks.checkpoint.interval': args.interval,
        'default_hooks.logger.interval': 1,
    }
    return ['--cfg-options', *(f'{key}={value}' for key, value in values.items())]


def undisturbed(args: argparse.Namespace) -> tuple[Path, list[tuple[int, int]]]:
    """Train in peace; the folder and (iteration, MiB of resident memory) along the way."""
    attempt = Attempt(args, args.work_dir / 'undisturbed')
    memory: list[tuple[int, int]] = []
    status = Path(f'/proc/{attempt.process.pid}/status')

    def sample(iteration: int) -> None:
        for line in _lines(status):
            if line.startswith('VmRSS') and (not memory or memory[-1][0] < iteration):
                memory.append((iteration, int(line.split()[1]) // 1024))

    attempt.wait(at=sample)
    if attempt.process.returncode:
        sys.exit(f'the undisturbed run failed, see {attempt.log}')
    return attempt.work_dir, memory


def disturbed(args: argparse.Namespace) -> tuple[Path, dict[str, int]]:
    """Train, dying again and again; the folder and what it came to."""
    rng = random.Random(args.seed)
    fates = ['kill'] * args.kills + ['full'] * args.full
    rng.shuffle(fates)
    work_dir = args.work_dir / 'disturbed'
    counts = dict(kills=0, full=0, failed=0, lost=0)
    for fate in [*fates, 'peace']:
        done = resumable(work_dir)
        if fate == 'full':
            attempt = Attempt(args, work_dir, max_file=1 << 20)  # less than a checkpoint has
            reached = attempt.wait()
        else:
            until = done + rng.randint(1, 3 * args.interval) if fate == 'kill' else None
            attempt = Attempt(args, work_dir)
            reached = attempt.wait(until)
        printed = attempt.log.read_text(errors='replace')
        finished = attempt.process.returncode == 0
        if done and f'resumed epoch: 0, iter: {done}' not in printed:
            counts['failed'] += 1
        if finished:
            break
        if fate == 'peace' or (fate == 'full' and 'the previous file is unchanged' not in printed):
            counts['failed'] += 1
        else:
            counts['kills' if fate == 'kill' else 'full'] += 1
        lost = max(reached - resumable(work_dir), 0)
        counts['lost'] += lost
        print(
            f'{fate} at iteration {reached} (began at {done}), {lost} to be done again', flush=True
        )
    return work_dir, counts


def resumable(work_dir: Path) -> int:
    """The iteration of the checkpoint that last_checkpoint names, 0 where there is none."""
    last = work_dir / 'last_checkpoint'
    return load_from_local(last.read_text())['meta']['iter'] if last.is_file() else 0


def average_precision(work_dir: Path) -> dict[str, float]:
    """Box and mask AP of the last validation."""
    logs = sorted(work_dir.glob('*/vis_data/*_*.json'), key=os.path.getmtime)
    lines = [json.loads(line) for log in logs for line in _lines(log)]
    metrics = [line for line in lines if 'coco/bbox_mAP' in line]
    return {key: metrics[-1][f'coco/{key}_mAP'] for key in ('bbox', 'segm')} if metrics else {}


def same_weights(a: Path, b: Path) -> bool:
    """True if the last checkpoints of two runs have the same weights, bit for bit."""
    states = [load_from_local((run / 'last_checkpoint').read_text()) for run in (a, b)]
    iters = {state['meta']['iter'] for state in states}
    first, second = (state['state_dict'] for state in states)
    return len(iters) == 1 and all(torch.equal(value, second[k]) for k, value in first.items())


def _lines(path: Path) -> list[str]:
    """The whole lines of a file that is being written, or just went away."""
    try:
        return [line for line in path.read_text().splitlines(True) if line.endswith('\n')]
    except (FileNotFoundError, ProcessLookupError):
        return []


def main() -> None:
    args = parse_args()
    write_shapes(args.work_dir / 'shapes', args.images, max(args.images // 4, 1))
    began = time.monotonic()
    peace, memory = undisturbed(args)
    needed = time.monotonic() - began
    print(f'undisturbed: {args.iters} iterations in {needed:.0f} s', flush=True)
    work_dir, counts = disturbed(args)
    same = same_weights(peace, work_dir)
    warm = [mib for iteration, mib in memory if iteration > WARM_UP * args.iters]
    rows = {
        'survived SIGKILLs': counts['kills'],
        'survived full disks': counts['full'],
        'restarts that failed': counts['failed'],
        'iterations lost, of all': f'{counts["lost"]} of {args.iters}',
        'AP undisturbed': average_precision(peace),
        'AP disturbed': average_precision(work_dir),
        'weights the same, bit for bit': same,
        f'memory from iteration {int(WARM_UP * args.iters)} to the end, MiB': (
            f'{warm[0]} to {warm[-1]}, at most {max(warm)}' if warm else 'not measured'
        ),
    }
    for key, value in rows.items():
        print(f'| {key} | {value} |')
    sys.exit(1 if counts['failed'] or not same else 0)


if __name__ == '__main__':
    main()
