"""Build commands that put configs and tools into the package. The metadata is in pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.editable_wheel import editable_wheel

ROOT = Path(__file__).resolve().parent
MIM = ('configs', 'tools', 'model-index.yml')


class BuildWithMim(build_py):
    """Put configs and tools into the package as ``.mim``, where mim and ``mmpaca::`` look.

    An editable installation gets links, so that edits take effect.
    """

    def run(self) -> None:
        package = (ROOT if self.editable_mode else Path(self.build_lib).resolve()) / 'mmpaca'
        if not self.editable_mode:  # setuptools would pack files of an older build
            shutil.rmtree(package, ignore_errors=True)
        super().run()
        mim = package / '.mim'
        shutil.rmtree(mim, ignore_errors=True)
        mim.mkdir()
        for name in MIM:
            source, target = ROOT / name, mim / name
            if self.editable_mode:
                target.symlink_to(Path('..', '..', name))
            elif source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns('__pycache__'))
            else:
                shutil.copy2(source, target)


class EditableForMim(editable_wheel):
    """Let mim and mmengine find an editable installation.

    They join site-packages and the first name in top_level.txt; an absolute path there leads to
    the checkout (open-mmlab/mmengine#1410).
    """

    def run(self) -> None:
        self._ensure_dist_info()
        (Path(self.dist_info_dir) / 'top_level.txt').write_text(f'{ROOT / "mmpaca"}\nmmpaca\n')
        super().run()


setup(cmdclass=dict(build_py=BuildWithMim, editable_wheel=EditableForMim))
