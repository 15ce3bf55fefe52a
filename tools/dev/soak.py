"""Train under random signals, full disks and hostile files; compare with a run left in peace.

Data are generated, the model is the demo's. Every restart is `tools/train.py CONFIG --resume`.
SIGKILL and SIGTERM are sent to the process group at a random time of training, validation or
saving. A full disk is a limit on the size of files. Hostile files are put into the work directory
before a restart: broken checkpoints, FIFOs, directories and garbage in the place of its files.

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
from pickle import UnpicklingError

import torch

import mmpaca  # noqa: F401
from mmpaca.apis.configs import config_dir
from mmpaca.checkpoint import load_from_local
from mmpaca.datasets import write_shapes

TRAIN = Path(__file__).resolve().parent.parent / 'train.py'
LOGS = '*/vis_data/*_*.json'
POLL = 0.2  # seconds
PRECIOUS = 'precious.txt'  # a file outside of the work directory, not to be changed
TIMEOUT = 3600  # seconds, of one restart
WARM_UP = 0.1  # of a run, before memory is measured


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        '--work-dir', type=Path, default=Path('work_dirs/soak'), help='folder of data and runs'
    )
    parser.add_argument('--iters', type=int, default=2000, help='training iterations')
    parser.add_argument('--interval', type=int, default=50, help='iterations between checkpoints')
    parser.add_argument('--batch-size', type=int, default=2, help='images per iteration')
    parser.add_argument('--workers', type=int, default=0, help='dataloader workers')
    parser.add_argument(
        '--images', type=int, default=200, help='to train on; a quarter more to test'
    )
    parser.add_argument('--kills', type=int, default=20, help='SIGKILLs before it is left in peace')
    parser.add_argument('--terms', type=int, default=10, help='SIGTERMs, after which it saves')
    parser.add_argument('--full', type=int, default=5, help='how many runs find the disk full')
    parser.add_argument(
        '--hostile', type=int, default=5, help='SIGKILLs after a restart among hostile files'
    )
    parser.add_argument('--seed', type=int, default=0, help='random seed of when it happens')
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
        self.hung = False
        self.older = set(work_dir.glob(LOGS))
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

    def wait(
        self,
        until: int | None = None,
        number: int = signal.SIGKILL,
        delay: float = 0,
        at: Callable[[int], None] = lambda _: None,
    ) -> int:
        """Wait for the end; the last iteration that it logged.

        Args:
            until: an iteration, after which the group gets a signal.
            number: the signal.
            delay: seconds from the iteration to the signal.
            at: is called with the last iteration again and again.
        """
        end = time.monotonic() + TIMEOUT
        while self.process.poll() is None:
            time.sleep(POLL)
            at(self.last())
            late = time.monotonic() > end  # it hangs
            if late or (until is not None and self.last() >= until):
                time.sleep(delay)
                os.killpg(self.process.pid, signal.SIGKILL if late else number)
                self.process.wait()
                self.hung = late
        return self.last()

    def last(self) -> int:
        """The last iteration in this attempt's log, 0 before it has one."""
        logs = set(self.work_dir.glob(LOGS)) - self.older
        lines = _lines(logs.pop()) if logs else []
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
        'train_cfg.val_interval': max(args.iters // 4, 1),
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
    (args.work_dir / PRECIOUS).write_text(PRECIOUS)
    fates = ['kill'] * args.kills + ['term'] * args.terms
    fates += ['full'] * args.full + ['hostile'] * args.hostile
    rng.shuffle(fates)
    work_dir = args.work_dir / 'disturbed'
    counts = dict(kill=0, term=0, full=0, hostile=0, failed=0, lost=0)
    for fate in [*fates, 'peace']:
        done = resumable(work_dir)
        if fate == 'hostile' and done:
            put_hostile_files(work_dir, rng)
        until = done + rng.randint(1, 3 * args.interval)
        number = signal.SIGTERM if fate == 'term' else signal.SIGKILL
        # Less than a checkpoint has. Logs and metrics go on.
        attempt = Attempt(args, work_dir, max_file=1 << 20 if fate == 'full' else None)
        reached = attempt.wait(
            until if fate in ('kill', 'term', 'hostile') else None, number, rng.random()
        )
        status = attempt.process.returncode
        printed = attempt.log.read_text(errors='replace')
        resumed = f'resumed epoch: 0, iter: {done}' in printed
        # Without its last_checkpoint it goes on from an older file.
        if fate == 'hostile':
            resumed = 'resumed epoch: 0, iter: ' in printed
        expected = {
            'kill': -signal.SIGKILL,
            'hostile': -signal.SIGKILL,
            'term': 128 + signal.SIGTERM,
            'full': 1,
            'peace': 0,
        }[fate]
        saving_failed = fate == 'full' and 'the previous file is unchanged' not in printed
        wrong = attempt.hung or (bool(done) and not resumed)
        if status and (status != expected or saving_failed):
            wrong = True
        if wrong:
            counts['failed'] += 1
            print(f'FAILED: {fate}, status {status}, see {attempt.log}', flush=True)
        if status == 0:
            break
        counts[fate] += not wrong
        now = resumable(work_dir)
        lost = max(max(reached, done) - now, 0)
        counts['lost'] += lost
        print(
            f'{fate} at iteration {reached} (began at {done}), {lost} to be done again', flush=True
        )
    if (args.work_dir / PRECIOUS).read_text() != PRECIOUS:
        counts['failed'] += 1
        print('FAILED: a file outside of the work directory was changed', flush=True)
    return work_dir, counts


def put_hostile_files(work_dir: Path, rng: random.Random) -> None:
    """Put broken and strange files where a restart looks; some in the place of its own."""
    garbage = rng.randbytes(1000)
    (work_dir / 'iter_99999991.pth').write_bytes(garbage)
    (work_dir / 'iter_99999992.pth').write_bytes(b'')
    whole = Path((work_dir / 'last_checkpoint').read_text()).read_bytes()
    (work_dir / 'iter_99999993.pth').write_bytes(whole[: len(whole) // 2])
    (work_dir / 'iter_99999994.pth').mkdir(exist_ok=True)
    if not (work_dir / 'iter_99999995.pth').exists():
        os.mkfifo(work_dir / 'iter_99999995.pth')
    (work_dir / 'iter_99999996.pth.77.part').write_bytes(garbage)
    if not os.path.lexists(work_dir / 'iter_99999997.pth'):
        (work_dir / 'iter_99999997.pth').symlink_to('iter_99999995.pth')
    (work_dir / '.lock').write_bytes(garbage)
    last = work_dir / 'last_checkpoint'
    kind = rng.choice(['garbage', 'fifo', 'link', 'missing', 'elsewhere', 'untouched'])
    if kind != 'untouched':
        last.unlink()
    if kind == 'garbage':
        last.write_bytes(garbage)
    elif kind == 'fifo':
        os.mkfifo(last)
    elif kind == 'link':  # to a file that is not the run's; never to a real device
        last.symlink_to(work_dir.parent.resolve() / PRECIOUS)
    elif kind == 'elsewhere':
        last.write_text('s3://bucket/iter_5.pth')
    print(f'hostile files, last_checkpoint: {kind}', flush=True)


def resumable(work_dir: Path) -> int:
    """The iteration of the checkpoint that last_checkpoint names, 0 where there is none."""
    last = work_dir / 'last_checkpoint'
    if not last.is_file():
        return 0
    try:
        return load_from_local(last.read_text())['meta']['iter']
    except (OSError, ValueError, RuntimeError, UnpicklingError):  # a hostile one is still there
        return 0


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
        'survived SIGKILLs': counts['kill'],
        'survived SIGTERMs': counts['term'],
        'survived full disks': counts['full'],
        'survived hostile files and a SIGKILL': counts['hostile'],
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
