"""Packaging. Everything declarative is here too, for setup.py is what OpenMMLab's users look for."""

import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
MIM = ('configs', 'tools', 'model-index.yml')


class BuildWithMim(build_py):
    """Put configs and tools into the package as ``.mim``, where mim and ``mmpaca::`` look.

    An editable installation gets links, so that edits count.
    """

    def run(self) -> None:
        super().run()
        editable = self.editable_mode
        mim = (ROOT if editable else Path(self.build_lib).resolve()) / 'mmpaca' / '.mim'
        shutil.rmtree(mim, ignore_errors=True)
        mim.mkdir(parents=True)
        for name in MIM:
            source, target = ROOT / name, mim / name
            if editable:
                target.symlink_to(Path('..', '..', name))
            elif source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns('__pycache__'))
            else:
                shutil.copy2(source, target)


setup(
    name='mmpaca',
    version=re.search(r"__version__ = '(.+)'", (ROOT / 'mmpaca/__init__.py').read_text())[1],
    description='PaCa-ViT (patch-to-cluster attention) as a backbone of OpenMMLab',
    long_description=(ROOT / 'README.md').read_text(),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    python_requires='>=3.10',
    packages=find_packages(include=['mmpaca', 'mmpaca.*']),
    entry_points=dict(console_scripts=['mmpaca = mmpaca.__main__:main']),
    package_data={'mmpaca': ['py.typed'], 'mmpaca.explain': ['*.html']},
    cmdclass=dict(build_py=BuildWithMim),
    # mmcv is left to the user: mmcv-lite, or mmcv where it is compiled already; never both.
    install_requires=[
        'torch>=2.6',
        'torchvision>=0.21',
        'mmengine>=0.10.3,<1.0',
        'mmdet>=3.3.0,<4.0',
        'opencv-python',
        'packaging',
        'pycocotools',
        'safetensors',
        'setuptools<82',  # mmengine imports pkg_resources
        'shapely',
    ],
    extras_require=dict(
        lite=['mmcv-lite==2.1.0'],
        mmcv=['mmcv==2.1.0'],
        mmpretrain=['mmpretrain>=1.2.0'],
        test=[
            'faster-coco-eval',
            'hypothesis',
            'pytest',
            'pytest-xdist',
            'ruff',
            'scikit-learn',
            'selenium',
        ],
    ),
)
