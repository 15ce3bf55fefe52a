"""PaCa-ViT as a backbone of OpenMMLab.

``import mmpaca`` registers everything: the backbone, hooks, metrics and datasets, torchvision's
kernels where mmcv has no compiled ones, the checkpoint loaders, and the ``mmpaca::`` scope of
configs. It has to come before mmdet's models import ``mmcv.ops``; in a config,
``custom_imports=dict(imports=['mmpaca'], allow_failed_imports=False)`` sees to that.
"""

import importlib

from . import plugin
from .version import __version__

# Python imports a package before its __main__. The command installs the plugin itself, for its help
# is instant without, and `mmpaca doctor` runs where the plugin cannot be imported.
if not plugin.is_command():
    plugin.install()

_SUBPACKAGES = (
    'analysis', 'apis', 'checkpoint', 'datasets', 'doctor', 'engine', 'evaluation', 'explain',
    'models', 'ops', 'registry',
)  # fmt: skip
_HOMES = {'PaCaViT': 'models', 'list_models': 'models', 'collect_env': 'doctor.environment'}

__all__ = ['PaCaViT', '__version__', 'collect_env', 'list_models', *_SUBPACKAGES]


def __getattr__(name: str) -> object:
    if name in _SUBPACKAGES:
        return importlib.import_module(f'{__name__}.{name}')
    if name in _HOMES:
        return getattr(importlib.import_module(f'{__name__}.{_HOMES[name]}'), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
