"""Working precision of the kernels."""

import functools
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec('P')
R = TypeVar('R')


def working_dtype(*tensors: Tensor) -> torch.dtype:
    """Return float64 if any tensor is float64, else float32.

    torchvision's CPU kernels lack bfloat16 and partly float16, and box coordinates beyond 1024
    are coarser than a pixel in both, so half-precision tensors are converted to float32.
    """
    return torch.float64 if any(t.dtype == torch.float64 for t in tensors) else torch.float32


def autocast_enabled(device_type: str) -> bool:
    """Tell whether autocast is on for a type of device; the meta device has none."""
    return torch.amp.is_autocast_available(device_type) and torch.is_autocast_enabled(device_type)


def without_autocast(
    kernel: Callable[Concatenate[Tensor, P], R],
) -> Callable[Concatenate[Tensor, P], R]:
    """Run ``kernel`` with autocast off on the device of its first tensor.

    Autocast does not look into compiled mmcv operators. Ours consist of PyTorch operators, which
    autocast would cast one by one, overriding the working precision.
    """

    @functools.wraps(kernel)
    def wrapper(first: Tensor, *args: P.args, **kwargs: P.kwargs) -> R:
        if not autocast_enabled(first.device.type):
            return kernel(first, *args, **kwargs)
        with torch.autocast(first.device.type, enabled=False):
            return kernel(first, *args, **kwargs)

    return wrapper
