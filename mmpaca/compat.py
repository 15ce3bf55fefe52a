"""Which versions of the stack are accepted, checked before anything of it is used."""

from __future__ import annotations  # an old Python shall get as far as its sentence

import importlib
import sys
from types import ModuleType

from packaging.specifiers import SpecifierSet

PYTHON = (3, 10)
# name: (accepted versions, what to install). 2.6 is the first torch whose weights-only loading
# takes renamed types and lists what it refuses.
REQUIREMENTS = {
    'torch': ('>=2.6', 'torch torchvision'),
    'mmengine': ('>=0.10.3,<1.0', 'mmengine==0.10.7'),
    'mmcv': ('>=2.0.0,<2.4.0', 'mmcv-lite==2.1.0'),
    'mmdet': ('>=3.3.0,<4.0', 'mmdet==3.3.0'),
}
# Needed by what asks for it; see OPTIONAL_FOR.
_EXPORT = "'mmpaca[export]'"
OPTIONAL = {
    'mmpretrain': ('>=1.2.0,<2.0', 'mmpretrain==1.2.0'),
    'faster_coco_eval': ('>=1.8', "'mmpaca[fast-eval]'"),
    'onnx': ('>=1.16', _EXPORT),
    'onnxruntime': ('>=1.18', _EXPORT),
    'onnxscript': ('>=0.3', _EXPORT),
}
OPTIONAL_FOR = {
    'mmpretrain': 'classification',
    'faster_coco_eval': 'FasterCocoMetric',
    'onnx': 'tools/deploy/export.py',
    'onnxruntime': 'tools/deploy/export.py',
    'onnxscript': 'tools/deploy/export.py',
}


def check_versions() -> None:
    """Raise unless Python and every package of :data:`REQUIREMENTS` have an accepted version.

    Raises:
        ImportError: as :func:`require`.
    """
    if sys.version_info < PYTHON:
        wanted, found = ('.'.join(map(str, version[:2])) for version in (PYTHON, sys.version_info))
        raise ImportError(
            f'mmpaca needs Python >={wanted} and this is {found}; run: python3.11 -m venv .venv'
        )
    for name in REQUIREMENTS:
        require(name)


def complaint(name: str, found: str | None) -> str | None:
    """What is wrong with a version, in one sentence with the command that mends it.

    Args:
        name: of :data:`REQUIREMENTS` or :data:`OPTIONAL`.
        found: the installed version, None for none.

    Returns:
        None where the version is accepted.
    """
    accepted, install = {**REQUIREMENTS, **OPTIONAL}[name]
    if found is not None and SpecifierSet(accepted).contains(found, prereleases=True):
        return None
    return f'mmpaca needs {name} {accepted} and found {found or "none"}; run: pip install {install}'


def require(name: str) -> ModuleType:
    """Import a package of :data:`REQUIREMENTS` or :data:`OPTIONAL` in an accepted version.

    Raises:
        ImportError: one sentence with what was found, what is accepted and the command that
            mends it.
    """
    try:
        package = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:  # the package is there, something that it needs is not
            raise
        raise ImportError(complaint(name, None)) from None
    except AssertionError as error:  # how mmdet refuses a version of mmcv or mmengine
        accepted, _ = {**REQUIREMENTS, **OPTIONAL}[name]
        raise ImportError(
            f'mmpaca needs {name} {accepted}, but the installed one refuses its '
            f'dependencies ({error}); run: pip install mmengine==0.10.7 mmcv-lite==2.1.0'
        ) from None
    wrong = complaint(name, package.__version__)
    if wrong:
        raise ImportError(wrong)
    return package
