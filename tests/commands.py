"""Running commands as a user does."""

import multiprocessing
import os
import runpy
import subprocess
import sys
from pathlib import Path

import shortcuts  # noqa: F401

ROOT = Path(__file__).resolve().parent.parent
# A server that has imported what the tools import, and forks: that takes an interpreter seconds.
_server = multiprocessing.get_context('forkserver')
_server.set_forkserver_preload(
    [
        'mmpaca.launch',
        'mmpaca.engine',
        'mmpaca.datasets.tolerant',
        'mmdet.apis',
        'mmdet.engine',
        'mmpretrain.apis',
        'matplotlib.pyplot',
        'torch._dynamo',
    ]
)


def run_in(folder: Path, *command, ok: bool = True, **env: str) -> str:
    """Run a command in a folder and return its output; fail if it does not end as expected."""
    result = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env={**os.environ, 'PYTHON': sys.executable, 'PYTHONPATH': str(ROOT), **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    assert (result.returncode == 0) == ok, result.stdout[-5000:]
    return result.stdout


def run_tool_in(folder: Path, script: str, *arguments, ok: bool = True) -> str:
    """The same for a script of ``tools/``, in a process that need not import everything first."""
    log = folder / 'printed'
    argv = [str(part) for part in (ROOT / 'tools' / script, *arguments)]
    process = _server.Process(target=_run_tool, args=(folder, argv, log))
    process.start()
    process.join(timeout=300)
    status = process.exitcode  # None: it has not ended
    process.kill()
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
