"""Acting on other packages' modules without importing them early."""

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Callable, Sequence
from types import ModuleType


def when_imported(module: str, callback: Callable[[], object]) -> None:
    """Call back right after a module is imported; now, if it is already.

    Args:
        module: full name.
        callback: called once.
    """
    if module in sys.modules:
        callback()
    else:
        sys.meta_path.insert(0, _Watch(module, callback))


class _Watch(importlib.abc.MetaPathFinder):
    """Finds one module as the other finders do, with a callback behind its execution."""

    def __init__(self, module: str, callback: Callable[[], object]) -> None:
        self.module = module
        self.callback = callback

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self.module:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def execute_and_call_back(module: ModuleType) -> None:
            execute(module)
            self.callback()

        spec.loader.exec_module = execute_and_call_back  # type: ignore[method-assign]
        return spec
