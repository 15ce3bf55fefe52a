"""Shared by all tests: mmpaca comes first, and nothing reaches the network."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import mmpaca  # noqa: F401  (before anything imports mmcv.ops)

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(Path(__file__).parent))  # for `import official`


@pytest.fixture(scope='session')
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture
def run(tmp_path):
    """Run a command in a folder of its own and return its output; fail the test if it fails."""

    def call(*command, ok: bool = True, cwd=tmp_path, **env: str) -> str:
        result = subprocess.run(
            [str(part) for part in command],
            cwd=cwd,
            env={**os.environ, 'PYTHON': sys.executable, 'PYTHONPATH': str(ROOT), **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
        )
        assert (result.returncode == 0) == ok, result.stdout[-5000:]
        return result.stdout

    return call


@pytest.fixture
def python(run):
    """Run Python code in a fresh interpreter."""
    return lambda code, **kwargs: run(sys.executable, '-c', code, **kwargs)


@pytest.fixture(scope='session')
def shapes(tmp_path_factory) -> Path:
    """A small generated dataset: 16 + 8 images of 64 pixels."""
    from mmpaca.datasets import write_shapes

    return write_shapes(tmp_path_factory.mktemp('data') / 'shapes', 16, 8, image_size=64)
