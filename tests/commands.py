"""Running commands as a user does."""

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import shortcuts  # noqa: F401

ROOT = Path(__file__).resolve().parent.parent
# A server that has imported what the tools import, and forks: that takes an interpreter seconds.
_server = multiprocessing.get_context('forkserver')
_server.set_forkserver_preload(
    [
        'mmpaca.apis.launch',
        'mmpaca.engine',
        'mmpaca.datasets.coco',
        'mmdet.apis',
        'mmdet.engine',
        'mmpretrain.apis',
        'matplotlib.pyplot',
        'torch._dynamo',
    ]
)

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


def run_tool_in(folder: Path, script: str, *arguments, ok: bool = True) -> str:
    """The same for a script of ``tools/``, in a process that need not import everything first."""
    log = folder / 'printed'
    argv = [str(part) for part in (ROOT / 'tools' / script, *arguments)]
    process = _server.Process(target=_run_tool, args=(folder, argv, log))
    process.start()
    process.join(timeout=300)
    status = process.exitcode  # None: it has not ended
    if status is None:
        kill(process.pid)
    printed = log.read_text()
    log.unlink()
    assert status is not None and (status == 0) == ok, printed[-5000:]
    return printed


def _run_tool(folder: Path, argv: list[str], log: Path) -> None:
    with log.open('w') as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())
            stream.reconfigure(line_buffering=True)
    multiprocessing.set_start_method(None, force=True)  # for what it starts, as anywhere else
    os.chdir(folder)
    os.environ['PYTHONPATH'] = str(ROOT)
    sys.argv = argv
    sys.path[0] = str(Path(argv[0]).parent)
    runpy.run_path(argv[0], run_name='__main__')
