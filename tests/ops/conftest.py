"""Serve ``mmcv._ext`` before any test module imports mmcv.ops."""

import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mmpaca.plugin import operators

operators.install()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where mmcv is compiled, what is served is its own, and only compared with ours."""
    compiled = operators.compiled_ext() is not None
    reason = 'mmcv is compiled' if compiled else 'mmcv is not compiled'
    for item in items:
        here = item.path.parent == Path(__file__).parent
        if here and compiled != (item.path.name == 'test_compiled.py'):
            item.add_marker(pytest.mark.skip(reason=reason))


# Loads the package without running mmpaca/__init__.py, whose imports are not what is tested.
PRELUDE = f"""
import sys, types
package = sys.modules['mmpaca'] = types.ModuleType('mmpaca')
package.__path__ = [{str(Path(operators.__file__).parent.parent)!r}]
from mmpaca.plugin import operators as shim
"""


@pytest.fixture(scope='session')
def run_python() -> Callable[..., str]:
    """Run code in a fresh interpreter, with the package loaded as ``shim``; its output."""

    def run(code: str, *arguments: str) -> str:
        result = subprocess.run(
            [sys.executable, '-c', PRELUDE + code, *arguments],
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert result.returncode == 0, result.stderr
        return result.stdout

    return run


@pytest.fixture(scope='session')
def bilinear() -> Callable[..., float]:
    """Bilinear sample of a map (H, W) at pixel coordinates; pixels outside are 0."""

    def sample(image, y: float, x: float) -> float:
        y0, x0 = math.floor(y), math.floor(x)
        total = 0.0
        for row in (y0, y0 + 1):
            for column in (x0, x0 + 1):
                if 0 <= row < image.shape[0] and 0 <= column < image.shape[1]:
                    share = (1 - abs(y - row)) * (1 - abs(x - column))
                    total += share * float(image[row, column])
        return total

    return sample
