"""Packaging. Everything declarative is here too, for setup.py is what OpenMMLab's users look for."""

import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py
from setuptools.command.editable_wheel import editable_wheel

ROOT = Path(__file__).resolve().parent
MIM = ('configs', 'tools', 'model-index.yml')


class BuildWithMim(build_py):
    """Put configs and tools into the package as ``.mim``, where mim and ``mmpaca::`` look.

    An editable installation gets links, so that edits count.
    """

    def run(self) -> None:
        package = (ROOT if self.editable_mode else Path(self.build_lib).resolve()) / 'mmpaca'
        if not self.editable_mode:  # setuptools would pack what an older build has left there
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

    They join site-packages and the first name in top_level.txt, and an absolute path there leads
    to the checkout (open-mmlab/mmengine#1410).
    """

    def run(self) -> None:
        self._ensure_dist_info()
        (Path(self.dist_info_dir) / 'top_level.txt').write_text(f'{ROOT / "mmpaca"}\nmmpaca\n')
        super().run()


# mmcv is nobody's requirement but these two's: one that is installed stays. Have never both.
LITE = ['mmcv-lite==2.1.0']
COMPILED = ['mmcv==2.1.0']
MMPRETRAIN = ['mmpretrain>=1.2.0,<2.0']
FAST_EVAL = ['faster-coco-eval>=1.8']
EXPORT = ['onnx', 'onnxruntime', 'onnxscript']

setup(
    name='mmpaca',
    version=re.search(r"__version__ = '(.+)'", (ROOT / 'mmpaca/version.py').read_text())[1],
    description='PaCa-ViT (patch-to-cluster attention) as a backbone of OpenMMLab',
    long_description=(ROOT / 'README.md').read_text(),
    long_description_content_type='text/markdown',
    author='mmpaca contributors',
    license='Apache-2.0',
    keywords='computer vision, object detection, instance segmentation, vision transformer, '
    'PaCa-ViT, OpenMMLab, mmdetection',
    classifiers=[
        'Development Status :: 4 - Beta',
        'Intended Audience :: Developers',
        'Intended Audience :: Science/Research',
        'Operating System :: POSIX :: Linux',
        'Programming Language :: Python :: 3',
        *(f'Programming Language :: Python :: 3.{minor}' for minor in (10, 11, 12, 13)),
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
        'Topic :: Scientific/Engineering :: Image Recognition',
    ],
    python_requires='>=3.10',
    packages=find_packages(include=['mmpaca', 'mmpaca.*']),
    entry_points=dict(console_scripts=['mmpaca = mmpaca.__main__:main']),
    package_data={'': ['*.html', 'py.typed']},
    zip_safe=False,
    cmdclass=dict(build_py=BuildWithMim, editable_wheel=EditableForMim),
    install_requires=[
        'torch>=2.6',
        'torchvision>=0.21',
        'mmengine>=0.10.3,<1.0',
        'mmdet>=3.3.0,<4.0',
        'opencv-python',
        'packaging',
        'pycocotools',
        'safetensors',
        'setuptools<80.9',  # mmengine imports pkg_resources, of which later ones warn or have none
        'shapely',
    ],
    extras_require={
        'lite': LITE,  # no compiler needed
        'mmcv': COMPILED,
        'mmpretrain': MMPRETRAIN,
        'fast-eval': FAST_EVAL,
        'export': EXPORT,
        'all': [*LITE, *MMPRETRAIN, *FAST_EVAL, *EXPORT],
        'docs': ['furo', 'myst-parser', 'sphinx'],
        'test': [
            *FAST_EVAL,
            *EXPORT,
            'build',
            'hypothesis',
            'pytest',
            'pytest-xdist',
            'ruff',
            'scikit-learn',
            'selenium',
        ],
    },
)
