"""Running commands as a user does."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


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
