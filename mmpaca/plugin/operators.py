"""The operators of :mod:`mmpaca.ops` in the place of mmcv's compiled module.

mmcv-lite ships ``mmcv/ops/*.py`` without the compiled module ``mmcv._ext`` that they call, so
``import mmcv.ops`` and with it ``import mmdet.models`` fail. `install` puts a module in that place
whose functions are written with PyTorch and torchvision: no compiler is needed. Where a compiled
``mmcv._ext`` exists, it is left alone.

``mmpaca.ops.SERVED`` lists what is served. Any other operator of mmcv can be imported, as mmcv's
own loader demands, and raises NotImplementedError when it is called.
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
    """Stands in for ``mmcv._ext``: every public name is a callable.

    mmcv's ``load_ext`` asserts with ``hasattr`` that each operator exists, when mmcv.ops is
    imported. Names therefore always resolve; what is missing says so when called.
    Names that start with an underscore raise AttributeError, as Python's protocols expect.
    """

    def __getattr__(self, name: str) -> Callable:
        if name.startswith('_'):
            raise AttributeError(f'module {self.__name__!r} has no attribute {name!r}')
        operator = _deferred(self, name) if name in SERVED else _unserved(name)
        setattr(self, name, operator)
        return operator


def install() -> bool:
    """Serve ``mmcv._ext`` unless a compiled one exists. Call it before mmcv.ops is imported.

    Imports neither mmcv nor torchvision. Calling it again changes nothing. A compiled ``_ext``
    that exists but cannot be loaded counts as existing: its own error shows up where mmcv
    imports it, and is not papered over.

    Returns:
        True if ``mmcv._ext`` is ours, False if it is compiled, somebody else's, or mmcv is absent.
    """
    present = sys.modules.get(EXT_NAME)
    if present is not None:
        return isinstance(present, TorchvisionExt)
    if _mmcv_path() is None or compiled_ext() is not None:
        return False
    spec = importlib.machinery.ModuleSpec(EXT_NAME, _Loader(), origin=__name__)
    module = importlib.util.module_from_spec(spec)
    sys.modules[EXT_NAME] = module
    # The import system binds a submodule to its parent only if it does the import itself.
    parent, _, child = EXT_NAME.rpartition('.')
    if parent in sys.modules:
        setattr(sys.modules[parent], child, module)
    return True


class _Loader(importlib.abc.Loader):
    """Lets ``pkgutil.find_loader`` answer "available", which mmengine takes as "mmcv has ops"."""

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> TorchvisionExt:
        return TorchvisionExt(spec.name, __doc__)

    def exec_module(self, module: types.ModuleType) -> None:
        """Nothing to run: attributes are made on demand."""


def _mmcv_path() -> list[str] | None:
    """Where mmcv's submodules are looked up, or None without mmcv. Does not import mmcv."""
    if 'mmcv' in sys.modules:
        return list(sys.modules['mmcv'].__path__)
    spec = importlib.util.find_spec('mmcv')
    return None if spec is None else list(spec.submodule_search_locations or [])


def compiled_ext() -> importlib.machinery.ModuleSpec | None:
    """The spec of an ``mmcv._ext`` that the import system would load for real, else None.

    Asks the finders themselves: `importlib.util.find_spec` would import mmcv, and would answer
    from ``sys.modules``, that is with our own module.
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
    """Import the kernel at its first call: torchvision takes long to load."""

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
            f'by compiled mmcv (pip uninstall mmcv-lite, pip install mmcv=={version}, see its '
            f'build docs). Served without compiling: {", ".join(sorted(SERVED))}'
        )

    operator.__name__ = operator.__qualname__ = name
    return operator
