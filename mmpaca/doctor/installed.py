"""What is installed, by the packages' own records: nothing is imported, so nothing can fail."""

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

# What one imports: the packages that install it. Two of them overwrite each other's files.
PROVIDERS = {
    'torch': ('torch',),
    'torchvision': ('torchvision',),
    'mmengine': ('mmengine', 'mmengine-lite', 'onedl-mmengine'),
    'mmcv': ('mmcv', 'mmcv-lite', 'mmcv-full', 'onedl-mmcv'),
    'mmdet': ('mmdet', 'onedl-mmdetection'),
    'mmpretrain': ('mmpretrain', 'onedl-mmpretrain'),
    'numpy': ('numpy',),
    'cv2': (
        'opencv-python',
        'opencv-python-headless',
        'opencv-contrib-python',
        'opencv-contrib-python-headless',
    ),
    'pycocotools': ('pycocotools',),
    'faster_coco_eval': ('faster-coco-eval',),
    'onnx': ('onnx',),
    'onnxruntime': ('onnxruntime', 'onnxruntime-gpu'),
    'onnxscript': ('onnxscript',),
    'setuptools': ('setuptools',),
}


def installed(module: str) -> dict[str, str]:
    """Version by package, of those in :data:`PROVIDERS` that install ``module``."""
    found = {}
    for package in PROVIDERS[module]:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def versions() -> dict[str, str]:
    """Python, platform, driver and packages, to be printed line by line."""
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
    """Name and driver of each GPU that the driver knows, whatever torch makes of it."""
    query = ['nvidia-smi', '--query-gpu=name,driver_version', '--format=csv,noheader']
    try:
        listed = subprocess.run(query, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):  # no driver, or one that does not work
        return []
    return [line.replace(', ', ' (driver ') + ')' for line in listed.stdout.splitlines()]


def check_versions() -> Iterator[Finding]:
    """Whether all that mmpaca needs is there in an accepted version."""
    for module in (*REQUIREMENTS, *OPTIONAL):
        packages = installed(module)
        if not packages and importlib.util.find_spec(module):
            continue  # on sys.path without being installed; importing it will tell
        found = next(iter(packages.values()), None)
        wrong = complaint(module, found)
        if wrong is None:
            yield Finding(module, OK, str(found))
        elif module in REQUIREMENTS:
            yield Finding(module, WRONG, wrong)
        else:
            yield Finding(module, NOTE, f'only for {OPTIONAL_FOR[module]}: {wrong}')


def check_conflicts() -> Iterator[Finding]:
    """Packages that do not go together, and half-installed ones."""
    for module in ('mmengine', 'mmcv', 'mmdet', 'mmpretrain', 'cv2'):
        yield from _check_providers(module)
    yield from _check_mmcv()
    yield from _check_torchvision()
    yield from _check_setuptools()


def _check_providers(module: str) -> Iterator[Finding]:
    packages = installed(module)
    keep = _to_keep(module)
    for package, version in packages.items():
        if package.startswith('onedl-'):
            text = f'{version} is a fork, with which mmpaca is tested less'
            remedy = f'pip uninstall -y {package} && pip install {keep}'
            yield Finding(package, NOTE, f'{text}; run: {remedy}')
    if len(packages) > 1:
        # Two OpenCVs mostly work, and other packages' dependencies bring them back.
        level = NOTE if module == 'cv2' else WRONG
        both = ' and '.join(f'{name} {version}' for name, version in packages.items())
        remedy = f'pip uninstall -y {" ".join(packages)} && pip install {keep}'
        yield Finding(module, level, f"{both} overwrite each other's files; run: {remedy}")


def _to_keep(module: str) -> str:
    """Of several packages, the one to install again."""
    if module == 'cv2':
        return 'opencv-python'
    if module == 'mmcv' and operators.compiled_ext():
        return 'mmcv==2.1.0'
    return {**REQUIREMENTS, **OPTIONAL}[module][1]


def _check_mmcv() -> Iterator[Finding]:
    if list(installed('mmcv')) == ['mmcv'] and not operators.compiled_ext():
        text = "this mmcv was built without its operators; torchvision's serve in their place"
        remedy = 'pip uninstall -y mmcv && pip install mmcv-lite==2.1.0'
        yield Finding('mmcv', NOTE, f'{text}; to say so, run: {remedy}')


def _check_torchvision() -> Iterator[Finding]:
    """torchvision's kernels load with the torch that they were built for only."""
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
    if 'mmengine' not in installed('mmengine'):  # its fork does without
        return
    if importlib.util.find_spec('pkg_resources') is None:
        version = installed('setuptools').get('setuptools', 'none')
        text = (
            f'mmengine reads configs with pkg_resources, which setuptools {version} does not have'
        )
        yield Finding('setuptools', WRONG, f"{text}; run: pip install 'setuptools<80.9'")
