"""Build information of the served operators, for ``collect_env`` of mmcv and mmdet."""

import torchvision


def get_compiler_version() -> str:
    """Name torchvision in place of mmcv's compiler. Serves mmcv/ops/info.py."""
    return f'not compiled: operators served by torchvision {torchvision.__version__} (mmpaca.ops)'


def get_compiling_cuda_version() -> str:
    """Return the CUDA version of torchvision's kernels, dotted. Serves mmcv/ops/info.py."""
    cuda = getattr(torchvision.version, 'cuda', None)
    if not cuda:
        return 'not available: torchvision is built without CUDA'
    # torchvision builds record either '13.0' or CUDART_VERSION (13000)
    if isinstance(cuda, int):
        cuda = f'{cuda // 1000}.{cuda // 10 % 100}'
    return f'{cuda} (of torchvision)'
