"""Running commands as a user does."""

import functools
import multiprocessing
import multiprocessing.forkserver
import os
import runpy
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import shortcuts  # noqa: F401

ROOT = Path(__file__).resolve().parent.parent
_server = multiprocessing.get_context('forkserver')


@functools.cache
def start_server() -> None:
    """Start a server that has imported what the tools import, and forks: an interpreter takes seconds.

    Processes that others start in this way come from it, too.
    """
    _server.set_forkserver_preload(['preloaded'])
    before = os.environ.get('PYTHONPATH')
    os.environ['PYTHONPATH'] = str(Path(__file__).parent)
    try:
        multiprocessing.forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ['PYTHONPATH']
        else:
            os.environ['PYTHONPATH'] = before


# For configs/demo/mask-rcnn_paca-demo_shapes.py on less data: four iterations of two images.
QUICK = (
    'train_cfg.max_iters=4',
    'train_cfg.val_interval=4',
    'train_dataloader.batch_size=2',
    'train_dataloader.num_workers=0',
    'train_dataloader.persistent_workers=False',
    'val_dataloader.num_workers=0',
    'test_dataloader.num_workers=0',
    'default_hooks.logger.interval=1',
    'default_hooks.checkpoint.interval=2',
    'default_hooks.checkpoint.max_keep_ckpts=5',
)


def quick_options(shapes: Path) -> list[str]:
    """``--cfg-options`` for four iterations of the demo on the data of the fixture ``shapes``."""
    data = [f'{s}_dataloader.dataset.data_root={shapes}' for s in ('train', 'val', 'test')]
    annotations = [f'{s}_evaluator.ann_file={shapes}/annotations/val.json' for s in ('val', 'test')]
    return ['--cfg-options', *QUICK, *data, *annotations]


def run_in(folder: Path, *command, ok: bool = True, **env: str) -> str:
    """Run a command in a folder and return its output; fail if it does not end as expected."""
    with started(folder, *command, output=subprocess.PIPE, **env) as process:
        printed = process.communicate(timeout=300)[0]
    assert (process.returncode == 0) == ok, printed[-5000:]
    return printed


@contextmanager
def started(
    folder: Path, *command, output: int | IO[str], **env: str
) -> Iterator[subprocess.Popen[str]]:
    """A command that runs in a folder meanwhile, and is killed at the end if it still does."""
    process = subprocess.Popen(
        [str(part) for part in command],
        cwd=folder,
        # Bash warns about a locale that is not installed, but not about this one.
        env={**os.environ, 'PYTHON': sys.executable, 'PYTHONPATH': str(ROOT), 'LC_ALL': 'C', **env},
        stdout=output,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            if process.poll() is None:
                kill(process.pid)


def kill(pid: int) -> None:
    """SIGKILL to a process and all below it: a group would not do, torchrun's ranks leave it."""
    below = children(pid)
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    for child in below:
        kill(child)


def children(pid: int) -> list[int]:
    """Process ids of the children of a process, on Linux."""
    found = []
    for path in Path(f'/proc/{pid}/task').glob('*/children'):
        with suppress(OSError):  # a thread that has ended
            found += map(int, path.read_text().split())
    return found


def free_port() -> str:
    """One that no other process gets by chance until it is used: ephemeral ones are above these."""
    for port in range(20000 + os.getpid() % 9000, 32768):
        with socket.socket() as s, suppress(OSError):
            s.bind(('127.0.0.1', port))
            return str(port)
    raise RuntimeError('no port below 32768 is free')


def run_tool_in(folder: Path, script: str, *arguments, ok: bool = True, ranks: int = 1) -> str:
    """The same for a script of ``tools/``, in a process that need not import everything first.

    With ranks, in as many processes as torchrun would start; returns what the first one printed.
    """
    start_server()
    argv = [str(part) for part in (ROOT / 'tools' / script, *arguments)]
    processes, logs = [], [folder / f'printed{rank}' for rank in range(ranks)]
    env = _torchrun_env(ranks) if ranks > 1 else {}
    for rank, log in enumerate(logs):
        own = dict(env, RANK=str(rank), LOCAL_RANK=str(rank)) if env else {}
        processes.append(_server.Process(target=_run_tool, args=(folder, argv, log, own)))
        processes[-1].start()
    statuses = []
    for process in processes:
        process.join(timeout=300)
        statuses.append(process.exitcode)  # None: it has not ended
        if process.exitcode is None:
            kill(process.pid)
    printed = [log.read_text() for log in logs]
    for log in logs:
        log.unlink()
    for status, text in zip(statuses, printed, strict=True):
        assert status is not None and (status == 0) == ok, text[-5000:]
    return printed[0]


def _torchrun_env(ranks: int) -> dict[str, str]:
    return dict(
        WORLD_SIZE=str(ranks),
        LOCAL_WORLD_SIZE=str(ranks),
        MASTER_ADDR='127.0.0.1',
        MASTER_PORT=free_port(),
        TORCHELASTIC_RUN_ID='none',
        TORCHELASTIC_RESTART_COUNT='0',
        TORCHELASTIC_MAX_RESTARTS='0',
    )


def _run_tool(folder: Path, argv: list[str], log: Path, env: dict[str, str]) -> None:
    with log.open('w') as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())
            stream.reconfigure(line_buffering=True)
    multiprocessing.set_start_method(None, force=True)  # for what it starts, as anywhere else
    os.chdir(folder)
    os.environ.update(env, PYTHONPATH=str(ROOT))
    sys.argv = argv
    sys.path[0] = str(Path(argv[0]).parent)
    runpy.run_path(argv[0], run_name='__main__')
