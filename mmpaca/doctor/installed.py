"""Check installed packages by their metadata, without importing them."""

import importlib.util
import platform
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata

from packaging.requirements import Requirement

from mmpaca.compat import OPTIONAL, OPTIONAL_FOR, REQUIREMENTS, complaint
from mmpaca.plugin import operators

from .report import NOTE, OK, WRONG, Finding

# Import name: the packages that provide it. Two of them overwrite each other's files.
PROVIDERS = {
    'torch': ('torch',),
    'torchvision': ('torchvision',),
    'mmengine': ('mmengine', 'mmengine-lite', 'onedl-mmengine'),
    'mmcv': ('mmcv', 'mmcv-lite', 'mmcv-full', 'onedl-mmcv'),
    'mmdet': ('mmdet', 'onedl-mmdetection'),
    'mmpretrain': ('mmpretrain', 'onedl-mmpretrain'),
    'mmseg': ('mmsegmentation', 'onedl-mmsegmentation'),
    'ftfy': ('ftfy',),
    'regex': ('regex',),
    'numpy': ('numpy',),
    'cv2': (
        'opencv-python',
        'opencv-python-headless',
        'opencv-contrib-python',
        'opencv-contrib-python-headless',
    ),
    'pycocotools': ('pycocotools',),
    'faster_coco_eval': ('faster-coco-eval',),
    'sahi': ('sahi',),
    'captum': ('captum',),
    'onnx': ('onnx',),
    'onnxruntime': ('onnxruntime', 'onnxruntime-gpu'),
    'onnxscript': ('onnxscript',),
    'openvino': ('openvino',),
    'nncf': ('nncf',),
    'setuptools': ('setuptools',),
}


def installed(module: str) -> dict[str, str]:
    """Return the versions of the installed packages that provide ``module``, by name."""
    found = {}
    for package in PROVIDERS[module]:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def versions() -> dict[str, str]:
    """Return the versions of Python, platform, driver and packages, by name."""
    from mmpaca import __version__

    lines = {
        'sys.platform': f'{sys.platform} ({platform.platform()})',
        'Python': f'{platform.python_version()} ({sys.executable})',
        'NVIDIA GPUs': ', '.join(nvidia_gpus()) or 'none',
        'mmpaca': __version__,
    }
    for module in PROVIDERS:
        packages = ', '.join(f'{name} {version}' for name, version in installed(module).items())
        lines[module] = packages or 'not installed'
    return lines


def nvidia_gpus() -> list[str]:
    """Return name and driver version of each GPU, as the driver reports them."""
    query = ['nvidia-smi', '--query-gpu=name,driver_version', '--format=csv,noheader']
    try:
        listed = subprocess.run(query, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):  # no driver, or a broken one
        return []
    return [line.replace(', ', ' (driver ') + ')' for line in listed.stdout.splitlines()]


def check_versions() -> Iterator[Finding]:
    """Yield a finding for every package that mmpaca needs, required or optional."""
    for module in (*REQUIREMENTS, *OPTIONAL):
        packages = installed(module)
        if not packages and importlib.util.find_spec(module):
            continue  # on sys.path without metadata; the import is checked later
        found = next(iter(packages.values()), None)
        wrong = complaint(module, found)
        if wrong is None:
            yield Finding(module, OK, str(found))
        elif module in REQUIREMENTS:
            yield Finding(module, WRONG, wrong)
        else:
            yield Finding(module, NOTE, f'only for {OPTIONAL_FOR[module]}: {wrong}')


def check_conflicts() -> Iterator[Finding]:
    """Yield a finding for every pair of conflicting packages and every incomplete package."""
    for module in ('mmengine', 'mmcv', 'mmdet', 'mmpretrain', 'mmseg', 'cv2'):
        yield from _check_providers(module)
    yield from _check_mmcv()
    yield from _check_torchvision()
    yield from _check_setuptools()


def _check_providers(module: str) -> Iterator[Finding]:
    packages = installed(module)
    keep = _to_keep(module)
    for package, version in packages.items():
        if package.startswith('onedl-'):
            text = f'{version} is a fork that is tested less'
            remedy = f'pip uninstall -y {package} && pip install {keep}'
            yield Finding(package, NOTE, f'{text}; run: {remedy}')
    if len(packages) > 1:
        # Two OpenCVs mostly work, and other packages' dependencies bring them back.
        level = NOTE if module == 'cv2' else WRONG
        both = ' and '.join(f'{name} {version}' for name, version in packages.items())
        remedy = f'pip uninstall -y {" ".join(packages)} && pip install {keep}'
        yield Finding(module, level, f"{both} overwrite each other's files; run: {remedy}")


def _to_keep(module: str) -> str:
    """Return the package to reinstall where several provide a module."""
    if module == 'cv2':
        return 'opencv-python'
    if module == 'mmcv' and operators.compiled_ext():
        return 'mmcv==2.1.0'
    return {**REQUIREMENTS, **OPTIONAL}[module][1]


def _check_mmcv() -> Iterator[Finding]:
    if list(installed('mmcv')) == ['mmcv'] and not operators.compiled_ext():
        text = "this mmcv was built without operators; torchvision's are used instead"
        remedy = 'pip uninstall -y mmcv && pip install mmcv-lite==2.1.0'
        yield Finding('mmcv', NOTE, f'{text}; run: {remedy}')


def _check_torchvision() -> Iterator[Finding]:
    """Check torchvision against torch: its kernels load only with the torch they were built for."""
    packages = {**installed('torch'), **installed('torchvision')}
    if len(packages) < 2:
        return
    found = packages['torch']
    for line in metadata.requires('torchvision') or ():
        wanted = Requirement(line)
        if wanted.name == 'torch' and not wanted.specifier.contains(found, prereleases=True):
            text = f'{packages["torchvision"]} needs torch {wanted.specifier} and found {found}'
            remedy = f'pip install torch=={found} torchvision'
            yield Finding('torchvision', WRONG, f'{text}; run: {remedy}')


def _check_setuptools() -> Iterator[Finding]:
    if 'mmengine' not in installed('mmengine'):  # the fork does not need it
        return
    if importlib.util.find_spec('pkg_resources') is None:
        version = installed('setuptools').get('setuptools', 'none')
        text = (
            f'mmengine reads configs with pkg_resources, which setuptools {version} does not have'
        )
        yield Finding('setuptools', WRONG, f"{text}; run: pip install 'setuptools<80.9'")
