"""Which versions of the stack are accepted, checked before anything of it is used."""

import importlib
from types import ModuleType

from packaging.specifiers import SpecifierSet

# name: (accepted versions, what to install). 2.6 is the first torch whose weights-only loading
# takes renamed types and lists what it refuses.
REQUIREMENTS = {
    'torch': ('>=2.6', 'torch torchvision'),
    'mmengine': ('>=0.10.3,<1.0', 'mmengine==0.10.7'),
    'mmcv': ('>=2.0.0,<2.4.0', 'mmcv-lite==2.1.0'),
    'mmdet': ('>=3.3.0,<4.0', 'mmdet==3.3.0'),
}
# Needed by what asks for it: a config of mmpretrain's, the export to ONNX.
_EXPORT = 'onnx onnxruntime onnxscript'
OPTIONAL = {
    'mmpretrain': ('>=1.2.0,<2.0', 'mmpretrain==1.2.0'),
    'onnx': ('>=1.16', _EXPORT),
    'onnxruntime': ('>=1.18', _EXPORT),
    'onnxscript': ('>=0.3', _EXPORT),
}


def check_versions() -> None:
    """Raise unless every package of :data:`REQUIREMENTS` is there in an accepted version.

    Raises:
        ImportError: as :func:`require`.
    """
    for name in REQUIREMENTS:
        require(name)


def require(name: str) -> ModuleType:
    """Import a package of :data:`REQUIREMENTS` or :data:`OPTIONAL` in an accepted version.

    Raises:
        ImportError: one sentence with what was found, what is accepted and the command that
            mends it.
    """
    accepted, install = {**REQUIREMENTS, **OPTIONAL}[name]
    remedy = f'run: pip install {install}'
    try:
        package = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:  # the package is there, something that it needs is not
            raise
        raise ImportError(f'mmpaca needs {name} {accepted} and found none; {remedy}') from None
    except AssertionError as error:  # how mmdet refuses a version of mmcv or mmengine
        raise ImportError(
            f'mmpaca needs {name} {accepted}, but the installed one refuses its '
            f'dependencies ({error}); run: pip install mmengine==0.10.7 mmcv-lite==2.1.0'
        ) from None
    if not SpecifierSet(accepted).contains(package.__version__, prereleases=True):
        raise ImportError(
            f'mmpaca needs {name} {accepted} and found {package.__version__}; {remedy}'
        )
    return package
