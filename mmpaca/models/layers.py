"""What stands around the attention: stem, transition, and the MLP with its depthwise convolution.

Maps stay (B, H, W, C) in memory. ``permute`` to (B, C, H, W) is then a view in PyTorch's
channels-last format, which convolutions take and give without copying.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.compiler import is_compiling
from torch.nn.init import normal_, ones_, trunc_normal_, zeros_
from torch.utils.checkpoint import checkpoint

NORM_EPS = 1e-6
# The hidden map of a band. Several times larger, it falls out of the caches of CPUs, and glibc
# gives memory beyond 32 MiB back to the system, which clears it page by page for the next map.
BAND_BYTES = 16 * 2**20
STEM_STRIDES = (1, 2, 4)


def parameter(*shape: int) -> nn.Parameter:
    """A parameter of zeros, to be initialised by its owner's ``reset_parameters``."""
    return nn.Parameter(torch.zeros(shape))


def conv_nhwc(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """Apply a 2D convolution to a (B, H, W, C) map and return a (B, H', W', C') map."""
    return conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def recompute(function: Callable[..., Tensor], *args: Any, random: bool = False) -> Tensor:
    """Call a function and save its arguments alone; the backward pass, if any, calls it again.

    The second call ends as soon as the last tensor that is needed is there: a matrix product at
    the end of the function is not repeated.

    Args:
        function: what to call.
        args: its arguments.
        random: whether it draws random numbers, which the second call shall draw again.
    """
    if not torch.is_grad_enabled():
        return function(*args)
    return checkpoint(function, *args, use_reentrant=False, preserve_rng_state=random)


@torch.no_grad()
def init_module(module: nn.Module) -> None:
    """The paper's initialisation of one module; use with ``nn.Module.apply``.

    Linear: truncated normal, std 0.02. Convolution: normal, std sqrt(2 / fan_out) where
    fan_out = kernel area * output channels / groups (which ``kaiming_normal_`` does not divide
    by groups). Norms: one and zero. Biases: zero. Modules that own bare parameters initialise
    them in ``reset_parameters``.
    """
    if isinstance(module, nn.Linear):
        trunc_normal_(module.weight, std=0.02)
    elif isinstance(module, nn.Conv2d):
        fan_out = math.prod(module.kernel_size) * module.out_channels // module.groups
        normal_(module.weight, std=math.sqrt(2.0 / fan_out))
    elif isinstance(module, (nn.LayerNorm, nn.BatchNorm2d)):
        ones_(module.weight)
    elif reset := getattr(module, 'reset_parameters', None):
        reset()
    bias = getattr(module, 'bias', None)
    if bias is not None:
        zeros_(bias)


class Stem(nn.Module):
    """3x3 convolutions of stride 2 and a LayerNorm: image to patches.

    Args:
        in_channels: channels of the image.
        embed_dims: channels C of stage 1.
        stride: 4 (two convolutions, C/2 channels between), 2 or 1 (one convolution).

    Raises:
        ValueError: ``stride`` is not one of :data:`STEM_STRIDES`.
    """

    def __init__(self, in_channels: int, embed_dims: int, stride: int = 4) -> None:
        super().__init__()
        if stride not in STEM_STRIDES:
            raise ValueError(f'stem_stride={stride!r} is not one of {STEM_STRIDES}')
        if stride == 4:
            channels, strides = [in_channels, embed_dims // 2, embed_dims], [2, 2]
        else:
            channels, strides = [in_channels, embed_dims], [stride]
        self.convs = nn.Sequential(
            *(
                nn.Conv2d(channels[i], channels[i + 1], 3, stride=step, padding=1)
                for i, step in enumerate(strides)
            )
        )
        self.norm = nn.LayerNorm(embed_dims, eps=NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) images to (B, ceil(H / stride), ceil(W / stride), C) patches."""
        # Three channels are cheap to reorder; everything after stays channels-last by itself.
        x = self.convs(x.contiguous(memory_format=torch.channels_last))
        return self.norm(x.permute(0, 2, 3, 1))  # (B, C, H, W) -> (B, H, W, C), a view


class Transition(nn.Module):
    """3x3 convolution of stride 2 and a LayerNorm: what halves a map between two stages.

    Args:
        in_channels: channels C of the stage before.
        out_channels: channels C' of the stage after.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1)
        self.norm = nn.LayerNorm(out_channels, eps=NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """A map (B, H, W, C) to (B, H/2, W/2, C'), rounded up."""
        return self.norm(conv_nhwc(self.conv, x))


class ConvMLP(nn.Module):
    """Linear, depthwise 3x3 convolution plus its input, GELU, linear, on (B, H, W, C) maps.

    The three maps of hidden channels are nearly all the memory of a block. So training saves
    the first of them only and computes the others again in the backward pass; inference on a
    CPU never has whole ones (``forward_in_bands``).

    Args:
        embed_dims: channels C.
        hidden_dims: channels between the linear layers.
        sub_norm: LayerNorm before the second linear layer.
        drop_rate: dropout after GELU and after the second linear layer.
    """

    identity: Tensor

    def __init__(
        self, embed_dims: int, hidden_dims: int, sub_norm: bool = False, drop_rate: float = 0.0
    ) -> None:
        super().__init__()
        self.fc1 = nn.Linear(embed_dims, hidden_dims)
        self.dwconv = nn.Conv2d(hidden_dims, hidden_dims, 3, padding=1, groups=hidden_dims)
        self.act = nn.GELU()
        self.norm = nn.LayerNorm(hidden_dims, eps=NORM_EPS) if sub_norm else nn.Identity()
        self.fc2 = nn.Linear(hidden_dims, embed_dims)
        self.drop = nn.Dropout(drop_rate)
        identity = torch.zeros(1, 1, 3, 3)
        identity[..., 1, 1] = 1
        self.register_buffer('identity', identity, persistent=False)

    def forward(self, x: Tensor, norm: nn.Module | None = None) -> Tensor:
        """Run the MLP.

        Args:
            x: a map, (B, H, W, C).
            norm: what normalises it first; here, so that its output need not be saved either.

        Returns:
            (B, H, W, C).
        """
        traced = is_compiling() or torch.jit.is_tracing()
        if x.device.type == 'cpu' and not (torch.is_grad_enabled() or traced):
            return self.forward_in_bands(x, norm)
        hidden = recompute(self.expand, x, norm)
        return recompute(self.contract, hidden, random=self.training and self.drop.p > 0)

    def expand(self, x: Tensor, norm: nn.Module | None) -> Tensor:
        """The first linear layer, (B, H, W, C) to hidden (B, H, W, 4C)."""
        return self.fc1(x if norm is None else norm(x))

    def contract(self, hidden: Tensor, rows: slice = slice(None)) -> Tensor:
        """What follows the first linear layer, for some rows: (B, H, W, 4C) to (B, H', W, C)."""
        mixed = self.drop(self.act(self.mix(hidden)[:, rows]))
        return self.drop(self.fc2(self.norm(mixed)))

    def mix(self, hidden: Tensor) -> Tensor:
        """The depthwise convolution plus its input, (B, H, W, 4C) to the same.

        They are one convolution with 1 added at the centre of its kernel. In half precision,
        also the TF32 of CUDA, the 1 would swallow small weights: there they stay two.
        """
        if hidden.device.type != 'cpu' or hidden.dtype in (torch.half, torch.bfloat16):
            return hidden + conv_nhwc(self.dwconv, hidden)
        kernel = self.dwconv.weight + self.identity
        maps = hidden.permute(0, 3, 1, 2)  # (B, H, W, C) -> (B, C, H, W), a view
        maps = F.conv2d(maps, kernel, self.dwconv.bias, padding=1, groups=len(kernel))
        return maps.permute(0, 2, 3, 1)

    def forward_in_bands(self, x: Tensor, norm: nn.Module | None) -> Tensor:
        """The same by a few images or rows at a time, so that hidden maps stay in the caches.

        A band computes one more row on either side, for the convolution to look at.
        """
        batch, height, width, _ = x.shape
        rows = max(1, BAND_BYTES // (width * self.fc1.out_features * x.element_size()))
        images = max(1, rows // height)
        if images >= batch and rows >= height:
            return self.contract(self.expand(x, norm))
        out: Tensor | None = None
        for i in range(0, batch, images):
            for top in range(0, height, rows):
                first = max(top - 1, 0)
                hidden = self.expand(x[i : i + images, first : top + rows + 1], norm)
                band = self.contract(hidden, slice(top - first, top - first + rows))
                if out is None:  # under autocast its type is known only now
                    out = band.new_empty(x.shape)
                out[i : i + images, top : top + rows] = band
        return x if out is None else out  # None: there are no images
