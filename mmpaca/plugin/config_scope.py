"""Scope ``mmpaca::`` in configs: ``_base_ = 'mmpaca::mask_rcnn_paca.py'``."""

import difflib

from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE

from mmpaca.apis.configs import config_dir

__all__ = ['config_dir', 'register_config_scope']

SCOPE = 'mmpaca'


def register_config_scope() -> None:
    """Register the scope in mmengine's configs.

    mmengine has a closed list of packages, requires a folder after ``::`` and does not find
    editable installations (open-mmlab/mmengine#1410); there is no hook to extend it. Its lookup of
    base files is wrapped for names that begin with ``mmpaca::`` only.
    """
    MODULE2PACKAGE.setdefault(SCOPE, SCOPE)
    lookup = Config._get_cfg_path
    if lookup.__module__ == __name__:  # wrapped already
        return

    def get_cfg_path(cfg_path: str, filename: str) -> tuple[str, str | None]:
        if not cfg_path.startswith(f'{SCOPE}::'):
            return lookup(cfg_path, filename)
        path = config_dir() / cfg_path.removeprefix(f'{SCOPE}::')
        if not path.is_file():
            known = sorted(str(p.relative_to(config_dir())) for p in config_dir().rglob('*.py'))
            close = difflib.get_close_matches(cfg_path.removeprefix(f'{SCOPE}::'), known)
            raise FileNotFoundError(
                f'{cfg_path} does not exist in {config_dir()}; similar: {", ".join(close) or "none"}'
            )
        # No scope: the types in these files are those of mmdet and mmpretrain.
        return str(path), None

    Config._get_cfg_path = staticmethod(get_cfg_path)
