"""PaCa-ViT as a backbone of OpenMMLab.

``import mmpaca`` registers everything: the backbone and hooks, torchvision's kernels where mmcv
has no compiled ones, the checkpoint loaders, and the ``mmpaca::`` scope of configs. It has to
come before mmdet's models import ``mmcv.ops``; in a config,
``custom_imports=dict(imports=['mmpaca'], allow_failed_imports=False)`` sees to that.
"""

# The order matters: a readable error before anything fails, operators before mmcv.ops is used.
# ruff: noqa: E402
from .compat import check_versions

__version__ = '0.1.0'
check_versions()

from . import ops

ops.install()

from .checkpoint.loading import register_loaders
from .config_scope import register_config_scope

register_loaders()
register_config_scope()

from . import datasets, engine, explain, models  # registers what they define

__all__ = ['__version__', 'datasets', 'engine', 'explain', 'models', 'ops']
