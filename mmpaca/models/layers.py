"""Stem, downsampling and conv-MLP layers.

Feature maps stay (B, H, W, C) in memory. ``permute`` to (B, C, H, W) is then a view in PyTorch's
channels-last format, which convolutions read and write without a copy.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.init import normal_, ones_, trunc_normal_, zeros_

from .fast_paths import DEFAULT, FastPaths

NORM_EPS = 1e-6
STEM_STRIDES = (1, 2, 4)


def parameter(*shape: int) -> nn.Parameter:
    """Create a parameter of zeros, to be initialised by ``reset_parameters`` of its module."""
    return nn.Parameter(torch.zeros(shape))


def conv_nhwc(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """Apply a 2D convolution to a (B, H, W, C) map and return a (B, H', W', C') map."""
    return conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


@torch.no_grad()
def init_module(module: nn.Module) -> None:
    """Initialise one module as in the paper; use with ``nn.Module.apply``.

    Linear: truncated normal, std 0.02. Convolution: normal, std sqrt(2 / fan_out) where
    fan_out = kernel area * output channels / groups (which ``kaiming_normal_`` does not divide
    by groups). Norms: one and zero. Biases: zero. Modules with parameters of their own initialise
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


def match_gradient_strides(module: nn.Module) -> None:
    """Give depthwise and 1x1 convolutions weights of the strides that their gradients will have.

    Gradients of convolutions on channels-last maps are channels-last. For these weights both layouts
    are the same memory, but DistributedDataParallel compares strides, warns and copies. Use with
    ``nn.Module.apply``.
    """
    if not isinstance(module, nn.Conv2d):
        return
    weight = module.weight.data  # (C, C' / groups, H, W)
    channels, height, width = weight.shape[1:]
    if channels == 1 or height * width == 1:
        strides = (channels * height * width, 1, channels * width, channels)
        module.weight = nn.Parameter(weight.as_strided(weight.shape, strides))


class Stem(nn.Module):
    """Patch embedding: 3x3 convolutions and a LayerNorm.

    Args:
        in_channels: channels of the image.
        embed_dims: channels C of stage 1.
        stride: 4 (two convolutions with C/2 channels in between), 2 or 1 (one convolution).

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
        """Map images (B, in_channels, H, W) to (B, ceil(H / stride), ceil(W / stride), C)."""
        # Reordering three channels is cheap; all later maps stay channels-last.
        x = self.convs(x.contiguous(memory_format=torch.channels_last))
        return self.norm(x.permute(0, 2, 3, 1))  # (B, C, H, W) -> (B, H, W, C), a view


class Transition(nn.Module):
    """Downsampling between two stages: 3x3 convolution of stride 2 and a LayerNorm.

    Args:
        in_channels: channels C of the previous stage.
        out_channels: channels C' of the next stage.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1)
        self.norm = nn.LayerNorm(out_channels, eps=NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, H, W, C) to (B, ceil(H / 2), ceil(W / 2), C')."""
        return self.norm(conv_nhwc(self.conv, x))


class ConvMLP(nn.Module):
    """Linear, depthwise 3x3 convolution plus its input, GELU, linear, on (B, H, W, C) maps.

    Args:
        embed_dims: channels C.
        hidden_dims: hidden channels.
        sub_norm: add a LayerNorm before the second linear layer.
        drop_rate: dropout rate after GELU and after the second linear layer.
        fast: fast paths, :meth:`FastPaths.mlp`.
    """

    identity: Tensor

    def __init__(
        self,
        embed_dims: int,
        hidden_dims: int,
        sub_norm: bool = False,
        drop_rate: float = 0.0,
        fast: FastPaths = DEFAULT,
    ) -> None:
        super().__init__()
        self.fast = fast
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
        """Run the MLP: ``contract(mix(expand(x)))``.

        Args:
            x: feature map, (B, H, W, C).
            norm: norm applied to ``x`` first; passed in so that its output can be recomputed, too.

        Returns:
            (B, H, W, C).
        """
        return self.fast.mlp(self, x, norm)

    def expand(self, x: Tensor, norm: nn.Module | None) -> Tensor:
        """Apply the first linear layer: (B, H, W, C) to hidden (B, H, W, 4C)."""
        return self.fc1(x if norm is None else norm(x))

    def mix(self, hidden: Tensor) -> Tensor:
        """Apply the depthwise convolution and add its input; keeps the shape (B, H, W, 4C)."""
        return hidden + conv_nhwc(self.dwconv, hidden)

    def contract(self, mixed: Tensor) -> Tensor:
        """Apply GELU and the second linear layer: (B, H, W, 4C) to (B, H, W, C)."""
        return self.drop(self.fc2(self.norm(self.drop(self.act(mixed)))))
