"""Serve the operators of :mod:`mmpaca.ops` as mmcv's compiled module.

mmcv-lite ships ``mmcv/ops/*.py`` without the compiled module ``mmcv._ext`` that they call, so
``import mmcv.ops`` and with it ``import mmdet.models`` fail. `install` provides that module with
functions written in PyTorch and torchvision: no compiler is needed. A compiled ``mmcv._ext`` is
never replaced.

``mmpaca.ops.SERVED`` lists the operators. All others can be imported, as mmcv's loader requires,
and raise NotImplementedError when they are called.
"""

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Callable
from typing import Any, NoReturn

from mmpaca.ops import SERVED

__all__ = ['EXT_NAME', 'TorchvisionExt', 'compiled_ext', 'install']

EXT_NAME = 'mmcv._ext'


class TorchvisionExt(types.ModuleType):
    """Replacement for ``mmcv._ext``: every public name is a callable.

    When mmcv.ops is imported, mmcv's ``load_ext`` asserts with ``hasattr`` that each operator
    exists. So every name resolves, and a missing operator raises an error when it is called. Names
    with a leading underscore raise AttributeError, as Python's protocols expect.
    """

    def __getattr__(self, name: str) -> Callable:
        if name.startswith('_'):
            raise AttributeError(f'module {self.__name__!r} has no attribute {name!r}')
        operator = _deferred(self, name) if name in SERVED else _unserved(name)
        setattr(self, name, operator)
        return operator


def install() -> bool:
    """Provide ``mmcv._ext`` unless a compiled one exists. Call it before mmcv.ops is imported.

    Imports neither mmcv nor torchvision; a second call changes nothing. A compiled ``_ext`` that
    cannot be loaded is not replaced: its error is raised where mmcv imports it.

    Returns:
        True if ``mmcv._ext`` is ours, False if it is compiled or another package's, or if mmcv is
        not installed.
    """
    present = sys.modules.get(EXT_NAME)
    if present is not None:
        return isinstance(present, TorchvisionExt)
    if _mmcv_path() is None or compiled_ext() is not None:
        return False
    spec = importlib.machinery.ModuleSpec(EXT_NAME, _Loader(), origin=__name__)
    module = importlib.util.module_from_spec(spec)
    sys.modules[EXT_NAME] = module
    # The import system binds a submodule to its parent only if it imports it itself.
    parent, _, child = EXT_NAME.rpartition('.')
    if parent in sys.modules:
        setattr(sys.modules[parent], child, module)
    return True


class _Loader(importlib.abc.Loader):
    """Loader, so that mmengine's check for mmcv's operators (``pkgutil.find_loader``) succeeds."""

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> TorchvisionExt:
        return TorchvisionExt(spec.name, __doc__)

    def exec_module(self, module: types.ModuleType) -> None:
        """Do nothing: attributes are created on demand."""


def _mmcv_path() -> list[str] | None:
    """Return the search path of mmcv's submodules, None without mmcv. Does not import mmcv."""
    if 'mmcv' in sys.modules:
        return list(sys.modules['mmcv'].__path__)
    spec = importlib.util.find_spec('mmcv')
    return None if spec is None else list(spec.submodule_search_locations or [])


def compiled_ext() -> importlib.machinery.ModuleSpec | None:
    """Return the spec of a compiled ``mmcv._ext``, None if there is none.

    Asks the finders directly: `importlib.util.find_spec` would import mmcv and would find our own
    module in ``sys.modules``.
    """
    mmcv_path = _mmcv_path()
    if mmcv_path is None:
        return None
    for finder in sys.meta_path:
        spec = finder.find_spec(EXT_NAME, mmcv_path)
        # A folder named _ext without code is a namespace package (no loader), not an extension.
        if spec is not None and spec.loader is not None:
            return spec
    return None


def _deferred(module: TorchvisionExt, name: str) -> Callable:
    """Import the kernel at its first call: torchvision takes seconds to load."""

    def operator(*args: Any, **kwargs: Any) -> Any:
        kernels = importlib.import_module(f'mmpaca.ops.{SERVED[name]}')
        served = getattr(kernels, name)
        setattr(module, name, served)
        return served(*args, **kwargs)

    operator.__name__ = operator.__qualname__ = name
    return operator


def _unserved(name: str) -> Callable:
    def operator(*args: Any, **kwargs: Any) -> NoReturn:
        version = importlib.import_module('mmcv').__version__
        raise NotImplementedError(
            f'mmcv operator {name!r} has no torchvision equivalent; to use it, replace mmcv-lite '
            f'{version} by compiled mmcv (see tools/dev/build_mmcv.sh in the repository of mmpaca). '
            f'Available without compiling: {", ".join(sorted(SERVED))}'
        )

    operator.__name__ = operator.__qualname__ = name
    return operator
