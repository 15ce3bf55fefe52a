"""Accepted versions of the stack, checked before any of it is used."""

from __future__ import annotations  # so that Python < 3.10 reaches the error below

import importlib
import sys
from types import ModuleType

from packaging.specifiers import SpecifierSet

PYTHON = (3, 10)
# name: (accepted versions, what to install). torch 2.6 is the first whose weights_only loading
# accepts renamed types and lists the objects that it refuses.
REQUIREMENTS = {
    'torch': ('>=2.6', 'torch torchvision'),
    'mmengine': ('>=0.10.3,<1.0', 'mmengine==0.10.7'),
    'mmcv': ('>=2.0.0,<2.4.0', 'mmcv-lite==2.1.0'),
    'mmdet': ('>=3.3.0,<4.0', 'mmdet==3.3.0'),
}
# Needed by the features in OPTIONAL_FOR.
_EXPORT = "'mmpaca[export]'"
_MMSEG = "'mmpaca[mmseg]'"
_OPENVINO = "'mmpaca[openvino]'"
OPTIONAL = {
    'mmpretrain': ('>=1.2.0,<2.0', 'mmpretrain==1.2.0'),
    'mmseg': ('>=1.2.2,<2.0', 'mmsegmentation==1.2.2'),
    'ftfy': ('>=6', _MMSEG),
    'regex': ('>=2022', _MMSEG),
    'faster_coco_eval': ('>=1.8', "'mmpaca[fast-eval]'"),
    'sahi': ('>=0.12', "'mmpaca[slice]'"),
    'captum': ('>=0.7', "'mmpaca[explain]'"),
    'onnx': ('>=1.16', _EXPORT),
    'onnxruntime': ('>=1.18', _EXPORT),
    'onnxscript': ('>=0.3', _EXPORT),
    'openvino': ('>=2025.0', _OPENVINO),
    'nncf': ('>=2.15', _OPENVINO),
}
OPTIONAL_FOR = {
    'mmpretrain': 'classification',
    'mmseg': 'semantic segmentation',
    'ftfy': 'semantic segmentation',
    'regex': 'semantic segmentation',
    'faster_coco_eval': 'FasterCocoMetric',
    'sahi': '`mmpaca predict --slice`',
    'captum': 'Grad-CAM and other methods of `mmpaca explain-eval`',
    'onnx': '`mmpaca export`',
    'onnxruntime': '`mmpaca export`',
    'onnxscript': '`mmpaca export`',
    'openvino': '`mmpaca export OUT.xml`',
    'nncf': '`mmpaca export OUT.xml --precision int8`',
}
# What packages import without requiring it: mmseg does so in mmseg.models, .datasets and .apis.
UNDECLARED = {'mmseg': ('ftfy', 'regex')}


def check_versions() -> None:
    """Check Python and every package of :data:`REQUIREMENTS`.

    Raises:
        ImportError: a version is not accepted, see :func:`require`.
    """
    if sys.version_info < PYTHON:
        wanted, found = ('.'.join(map(str, version[:2])) for version in (PYTHON, sys.version_info))
        raise ImportError(
            f'mmpaca needs Python >={wanted} and this is {found}; run: python3.11 -m venv .venv'
        )
    for name in REQUIREMENTS:
        require(name)


def complaint(name: str, found: str | None) -> str | None:
    """Describe what is wrong with a version, with the command that fixes it.

    Args:
        name: key of :data:`REQUIREMENTS` or :data:`OPTIONAL`.
        found: installed version, None if it is not installed.

    Returns:
        One sentence, or None if the version is accepted.
    """
    accepted, install = {**REQUIREMENTS, **OPTIONAL}[name]
    if found is not None and SpecifierSet(accepted).contains(found, prereleases=True):
        return None
    return f'mmpaca needs {name} {accepted} and found {found or "none"}; run: pip install {install}'


def require(name: str) -> ModuleType:
    """Import a package of :data:`REQUIREMENTS` or :data:`OPTIONAL` in an accepted version.

    Raises:
        ImportError: names the version found, the versions accepted and the command that fixes it.
    """
    try:
        package = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:  # a dependency of the package is missing
            raise
        raise ImportError(complaint(name, None)) from None
    except AssertionError as error:  # how mmdet refuses a version of mmcv or mmengine
        accepted, _ = {**REQUIREMENTS, **OPTIONAL}[name]
        raise ImportError(
            f'mmpaca needs {name} {accepted}, but the installed one refuses its '
            f'dependencies ({error}); run: pip install mmengine==0.10.7 mmcv-lite==2.1.0'
        ) from None
    # OpenVINO's goes on with the build: 2026.4.1-22982-e213a147257-releases/2026/4
    wrong = complaint(name, package.__version__.partition('-')[0])
    if wrong:
        raise ImportError(wrong)
    for other in UNDECLARED.get(name, ()):
        require(other)
    return package
