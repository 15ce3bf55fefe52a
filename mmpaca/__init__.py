"""PaCa-ViT as a backbone of OpenMMLab.

``import mmpaca`` registers everything: the backbone and hooks, torchvision's kernels where mmcv
has no compiled ones, the checkpoint loaders, and the ``mmpaca::`` scope of configs. It has to
come before mmdet's models import ``mmcv.ops``; in a config,
``custom_imports=dict(imports=['mmpaca'], allow_failed_imports=False)`` sees to that.

It is quick, for it imports none of them: subpackages are imported when they are first used, by
their names here or in a registry.
"""

import importlib

from .compat import check_versions, is_doctor

__version__ = '0.1.0'


def _register() -> None:
    """Everything that an import of mmpaca does, in this order."""
    check_versions()  # a readable error before anything fails
    from . import ops

    ops.install()  # before mmcv.ops is used

    from . import registry  # noqa: F401
    from .config_scope import register_config_scope
    from .lazy import when_imported
    from .model_names import register_classifiers, register_detectors

    register_config_scope()
    when_imported('mmengine.infer', register_detectors)
    when_imported('mmpretrain.apis.model', register_classifiers)
    when_imported('mmengine.runner', lambda: importlib.import_module('mmpaca.checkpoint.loading'))


if not is_doctor():
    _register()

_SUBPACKAGES = ('analysis', 'checkpoint', 'datasets', 'doctor', 'engine', 'evaluation', 'explain', 'models')  # fmt: skip

__all__ = ['__version__', 'collect_env', 'ops', 'registry', *_SUBPACKAGES]


def __getattr__(name: str) -> object:
    if name in _SUBPACKAGES:
        return importlib.import_module(f'{__name__}.{name}')
    if name == 'collect_env':
        return importlib.import_module(f'{__name__}.doctor.environment').collect_env
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
