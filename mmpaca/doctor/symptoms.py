"""Explain error messages and name the command that fixes them."""

import re

REINSTALL_TORCH = 'pip install --force-reinstall torch torchvision'
REPLACE_MMCV = (
    'pip uninstall -y mmcv && pip install mmcv-lite==2.1.0 (operators of torchvision; to compile '
    "mmcv's, see tools/dev/build_mmcv.sh in the repository of mmpaca)"
)

# Pattern in the message, meaning, remedy. The first match counts.
SYMPTOMS = (
    (
        r'torchvision::\w+ does not exist|torchvision.*undefined symbol',
        'torchvision was built for another torch',
        REINSTALL_TORCH,
    ),
    (
        r'mmcv\W_ext\b',
        "mmcv's compiled operators do not load: they were compiled with another torch, or not "
        'completely',
        REPLACE_MMCV,
    ),
    (
        r'No module named .pkg_resources',
        'mmengine needs pkg_resources, which setuptools 82 no longer has',
        "pip install 'setuptools<80.9'",
    ),
    (
        r'compiled using NumPy 1|_ARRAY_API not found|numpy\.dtype size changed'
        r"|module 'numpy' has no attribute",
        'a package was made for NumPy 1',
        "pip install --upgrade --force-reinstall pycocotools opencv-python, or else 'numpy<2'",
    ),
    (
        r'libGL\.so|libgthread|libSM\.so|libXext\.so',
        'opencv-python needs desktop libraries',
        'pip uninstall -y opencv-python && pip install opencv-python-headless',
    ),
    (
        r'NVIDIA driver .* is too old|driver version is insufficient',
        'the NVIDIA driver is too old for the CUDA version of this torch',
        'sudo ubuntu-drivers install (or install a torch for an older CUDA, see pytorch.org)',
    ),
    (
        r'No CUDA GPUs are available',
        'CUDA_VISIBLE_DEVICES hides the GPUs',
        'unset CUDA_VISIBLE_DEVICES',
    ),
    (
        r'Found no NVIDIA driver|CUDA unknown error',
        'the NVIDIA driver does not work',
        'sudo ubuntu-drivers install, then restart the machine',
    ),
    (
        r'no kernel image is available|not compatible with the current PyTorch',
        'this torch has no code for this GPU',
        f'{REINSTALL_TORCH} (for another CUDA version, see pytorch.org)',
    ),
    (
        r'lib(cu|nv)\w+\.so|libc10|libtorch|torch.*undefined symbol',
        'torch and its CUDA libraries do not match',
        REINSTALL_TORCH,
    ),
)
# Import names that differ from the package's name.
_PACKAGES = {'cv2': 'opencv-python', 'PIL': 'pillow', 'yaml': 'pyyaml', 'mmcv': 'mmcv-lite==2.1.0'}


def explain(error: BaseException | str) -> str:
    """Explain an error in one sentence that ends with the command that fixes it.

    Args:
        error: an exception, or its printed form.
    """
    said = str(error) if isinstance(error, str) else f'{type(error).__name__}: {error}'
    said = ' '.join(said.split())
    if '; run: ' in said:  # one of our own errors names its remedy
        return said.partition(': ')[2] if re.match(r'\w+: ', said) else said
    for pattern, meaning, remedy in SYMPTOMS:
        if re.search(pattern, said):
            return f'{meaning} ({said}); run: {remedy}'
    missing = re.search(r"No module named '([\w.]+)'", said)
    if missing:
        name = missing[1].partition('.')[0]
        return f'{name} is missing ({said}); run: pip install {_PACKAGES.get(name, name)}'
    return f'{said} (unknown fault: please report it with the entire output)'


def last_error(printed: str) -> str:
    """Return the exception at the end of a printed traceback."""
    lines = printed.strip().splitlines()
    starts = [i for i, line in enumerate(lines) if re.match(r'[\w.]+(Error|Exception)\b', line)]
    return ' '.join(lines[starts[-1] :] if starts else lines[-1:])
