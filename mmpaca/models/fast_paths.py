"""Fast paths: the same numbers as the readable blocks, in less time or memory.

:class:`FastPaths` is the one switch. ``FastPaths(enabled=False)`` runs the modules as they are
written; tests/models/test_fast_paths.py compares both, and docs/performance.md says what each path
is worth.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.backends import cuda as cuda_backends
from torch.compiler import is_compiling
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

from mmpaca.ops.precision import autocast_enabled

if TYPE_CHECKING:
    from .layers import ConvMLP

HALF = (torch.float16, torch.bfloat16)
RECOMPUTE = ('auto', True, False)
# Size of the hidden map of one band. Larger maps do not fit into CPU caches, and glibc returns
# blocks above 32 MiB to the system, which has to clear every page again for the next map.
BAND_BYTES = 16 * 2**20


@dataclass(frozen=True)
class FastPaths:
    """What a backbone does beside the readable code.

    Attributes:
        enabled: False runs the modules as they are written.
        recompute: recompute hidden maps in the backward pass instead of saving them. ``'auto'``
            does so on CPUs, where it costs little; on GPUs it adds kernel launches, which are what
            limits a small batch.

    Raises:
        ValueError: ``recompute`` is invalid, or True although ``enabled`` is False.
    """

    enabled: bool = True
    recompute: bool | str = 'auto'

    def __post_init__(self) -> None:
        if self.recompute not in RECOMPUTE:
            raise ValueError(f'recompute={self.recompute!r} is not one of {RECOMPUTE}')
        if self.recompute is True and not self.enabled:
            raise ValueError('recompute=True needs fast_paths=True')

    def recomputes(self, device: torch.device) -> bool:
        """Tell whether hidden maps are recomputed on a device."""
        if self.recompute == 'auto':
            return self.enabled and device.type == 'cpu'
        return bool(self.recompute)

    def describe(self, device: torch.device) -> str:
        """Say what ``recompute`` means on a device."""
        done = 'are recomputed' if self.recomputes(device) else 'are saved'
        return f'recompute={self.recompute!r}: hidden maps {done} for the backward pass'

    def call(self, function: Callable[..., Tensor], *args: Any, random: bool = False) -> Tensor:
        """Call a function; if recomputing, save only its arguments for the backward pass.

        The recomputation stops as soon as all saved tensors exist: a matrix product at the end of
        the function is not repeated.

        Args:
            function: function to call.
            args: arguments of the function; one is a tensor.
            random: preserve the RNG state, for functions that draw random numbers.
        """
        device = next(arg.device for arg in args if isinstance(arg, Tensor))
        if not torch.is_grad_enabled() or not self.recomputes(device):
            return function(*args)
        return checkpoint(function, *args, use_reentrant=False, preserve_rng_state=random)

    def cast(self, x: Tensor) -> Tensor:
        """Cast to autocast's precision, for a tensor that several layers take.

        Autocast itself would cast it again for each of them.
        """
        device = x.device.type
        if not self.enabled or not autocast_enabled(device):
            return x
        return x.to(torch.get_autocast_dtype(device))

    def attention(self, q: Tensor, k: Tensor, v: Tensor, dropout: float) -> Tensor:
        """Attend, all (B, h, L, d), on CUDA in half precision with cuDNN's kernels last.

        PyTorch prefers them on sm90 and newer, where they build a plan for each new shape; training
        at many image sizes has more than a thousand. torch.compile cannot trace the choice.
        """
        if not self.enabled or not q.is_cuda or q.dtype not in HALF or is_compiling():
            return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)
        with sdpa_kernel(_backends(), set_priority=True):
            return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)

    def mlp(self, mlp: 'ConvMLP', x: Tensor, norm: nn.Module | None) -> Tensor:
        """Run :class:`~mmpaca.models.layers.ConvMLP`, (B, H, W, C) to (B, H, W, C).

        Inference on CPUs works in bands (:func:`mlp_in_bands`); training recomputes two of the
        three hidden maps, which take nearly all memory of a block, and the norm's output.
        """
        if not self.enabled:
            return mlp.contract(mlp.mix(mlp.expand(x, norm)))
        traced = is_compiling() or torch.jit.is_tracing()
        if x.device.type == 'cpu' and not (torch.is_grad_enabled() or traced):
            return mlp_in_bands(mlp, x, norm)
        hidden = self.call(mlp.expand, x, norm)
        return self.call(_rest_of_mlp, mlp, hidden, random=mlp.training and mlp.drop.p > 0)


DEFAULT = FastPaths()


def any_size() -> dict[str, Any]:
    """Return arguments of ``torch.compile`` for images of any size.

    Training with free sizes, Inductor of torch 2.14 fails on maps that are views, whose symbolic strides
    it cannot sort, unless it is told to keep the strides.
    """
    from torch._inductor import config

    keep = dict(strict_output_strides=True) if hasattr(config, 'strict_output_strides') else {}
    return dict(dynamic=True, options=keep)


def _backends() -> list[SDPBackend]:
    """Return the attention backends that the user left enabled, cuDNN's after the fused ones."""
    enabled = {
        SDPBackend.FLASH_ATTENTION: cuda_backends.flash_sdp_enabled(),
        SDPBackend.EFFICIENT_ATTENTION: cuda_backends.mem_efficient_sdp_enabled(),
        SDPBackend.CUDNN_ATTENTION: cuda_backends.cudnn_sdp_enabled(),
        SDPBackend.MATH: cuda_backends.math_sdp_enabled(),
    }
    return [backend for backend, on in enabled.items() if on]


def mix(mlp: 'ConvMLP', hidden: Tensor) -> Tensor:
    """Apply the depthwise convolution and add its input; keeps the shape (B, H, W, 4C).

    In float32 on CPUs this is one convolution whose kernel has 1 added at the centre. In half
    precision and in TF32 the 1 would absorb small weights, so the two steps stay separate.
    """
    if hidden.device.type != 'cpu' or hidden.dtype in HALF:
        return mlp.mix(hidden)
    kernel = mlp.dwconv.weight + mlp.identity
    maps = hidden.permute(0, 3, 1, 2)  # (B, H, W, C) -> (B, C, H, W), a view
    maps = F.conv2d(maps, kernel, mlp.dwconv.bias, padding=1, groups=len(kernel))
    return maps.permute(0, 2, 3, 1)


def _rest_of_mlp(mlp: 'ConvMLP', hidden: Tensor, rows: slice = slice(None)) -> Tensor:
    """Apply what follows the first linear layer, to rows: (B, H, W, 4C) to (B, H', W, C)."""
    return mlp.contract(mix(mlp, hidden)[:, rows])


def mlp_in_bands(mlp: 'ConvMLP', x: Tensor, norm: nn.Module | None) -> Tensor:
    """Run the MLP on a few images or rows at a time, so that hidden maps stay in the caches.

    Each band includes one more row on either side for the convolution.
    """
    batch, height, width, _ = x.shape
    rows = max(1, BAND_BYTES // (width * mlp.fc1.out_features * x.element_size()))
    images = max(1, rows // height)
    if images >= batch and rows >= height:
        return _rest_of_mlp(mlp, mlp.expand(x, norm))
    out: Tensor | None = None
    for i in range(0, batch, images):
        for top in range(0, height, rows):
            first = max(top - 1, 0)
            hidden = mlp.expand(x[i : i + images, first : top + rows + 1], norm)
            band = _rest_of_mlp(mlp, hidden, slice(top - first, top - first + rows))
            if out is None:  # under autocast the dtype is known only now
                out = band.new_empty(x.shape)
            out[i : i + images, top : top + rows] = band
    return x if out is None else out  # None: the batch is empty
