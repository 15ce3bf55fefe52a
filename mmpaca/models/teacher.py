"""External clustering teacher: a small ConvNet that computes the assignments of all stages.

Paper, section 3.3. It takes the output of the stem, runs bottom-up through the stages and then
top-down like a feature pyramid, so that the assignment of an early stage uses the features of the
last one. Feature maps are (B, C, H, W) views in channels-last memory format.
"""

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .clustering import assign, cluster_logits


class MixerBlock(nn.Module):
    """Residual depthwise 7x7 convolution, GELU, BN; then 1x1 convolution, GELU, BN.

    Args:
        channels: channels C of the feature map.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm1 = nn.BatchNorm2d(channels)
        self.pointwise = nn.Conv2d(channels, channels, 1)
        self.norm2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        x = x + self.norm1(F.gelu(self.depthwise(x)))
        return self.norm2(F.gelu(self.pointwise(x)))


class ConvGELUNorm(nn.Module):
    """Convolution, GELU, BN.

    Args:
        in_channels: input channels C.
        out_channels: output channels C'.
        kernel_size: odd kernel size; the padding is half of it.
        stride: stride of the convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride=stride, padding=kernel_size // 2
        )
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C', ceil(H / stride), ceil(W / stride))."""
        return self.norm(F.gelu(self.conv(x)))


class BlurTransition(ConvGELUNorm):
    """Fixed binomial blur against aliasing, then 3x3 convolution of stride 2, GELU, BN.

    Args:
        in_channels: channels C of the previous stage.
        out_channels: channels C' of the next stage.
    """

    blur_filter: Tensor

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size=3, stride=2)
        row = torch.tensor([1.0, 2.0, 1.0])
        kernel = torch.outer(row, row) / 16
        self.register_buffer('blur_filter', kernel.repeat(in_channels, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C', ceil(H / 2), ceil(W / 2))."""
        return super().forward(F.conv2d(x, self.blur_filter, padding=1, groups=x.shape[1]))


class TeacherStage(nn.Module):
    """One stage of the teacher; parts that are not needed are None.

    Args:
        channels: channels C of this stage.
        depth: number of bottom-up blocks.
        num_clusters: number of clusters M; 0 if this stage needs no assignment.
        finer: channels of the previous stage; None in the first.
        coarser: channels C' of the next stage, if its top-down map is merged in.
    """

    def __init__(
        self, channels: int, depth: int, num_clusters: int, finer: int | None, coarser: int | None
    ) -> None:
        super().__init__()
        self.transition = None if finer is None else BlurTransition(finer, channels)
        self.blocks = nn.Sequential(*(MixerBlock(channels) for _ in range(depth)))
        self.lateral = None if coarser is None else ConvGELUNorm(coarser, channels, 1, 1)
        self.smooth = None if coarser is None else MixerBlock(channels)
        self.to_clusters = nn.Conv2d(channels, num_clusters, 1) if num_clusters else None

    def down(self, x: Tensor) -> Tensor:
        """Bottom-up pass: output of the previous stage (or the stem) to (B, C, H, W)."""
        return self.blocks(x if self.transition is None else self.transition(x))

    def up(self, feature: Tensor, coarser: Tensor) -> Tensor:
        """Top-down pass: merge the map of the next stage into that of this stage.

        Args:
            feature: bottom-up map of this stage, (B, C, H, W).
            coarser: top-down map of the next stage, (B, C', H', W').

        Returns:
            (B, C, H, W); ``feature`` itself if nothing is merged in.
        """
        if self.lateral is None or self.smooth is None:
            return feature
        coarser = F.interpolate(coarser, size=feature.shape[-2:], mode='bilinear')
        return self.smooth(feature + self.lateral(coarser))

    def assignment(self, x: Tensor) -> Tensor | None:
        """Compute the assignment Z, (B, M, N), from the top-down map; None if M = 0."""
        if self.to_clusters is None:
            return None
        return assign(cluster_logits(x.permute(0, 2, 3, 1), self.to_clusters))  # a view


class ClusteringTeacher(nn.Module):
    """External clustering teacher: computes the assignments of all stages from the stem's output.

    Args:
        embed_dims: channels per stage.
        depths: number of bottom-up blocks per stage.
        num_clusters: number of clusters M per stage; 0 if a stage needs no assignment.

    Example:
        >>> import torch
        >>> from mmpaca.models import ClusteringTeacher
        >>> teacher = ClusteringTeacher((16, 32), depths=(1, 1), num_clusters=(0, 10)).eval()
        >>> maps, assignments = teacher(torch.rand(1, 8, 12, 16))
        >>> [tuple(t.shape) for t in maps], assignments[0], tuple(assignments[1].shape)
        ([(1, 8, 12, 16), (1, 4, 6, 32)], None, (1, 10, 24))
    """

    def __init__(
        self, embed_dims: Sequence[int], depths: Sequence[int], num_clusters: Sequence[int]
    ) -> None:
        super().__init__()
        # The top-down pass ends at the finest stage that needs an assignment: parameters of finer
        # stages would never get a gradient.
        needed = [i for i, clusters in enumerate(num_clusters) if clusters]
        top = len(embed_dims) - 1
        finest = needed[0] if needed else top
        self.stages = nn.ModuleList(
            TeacherStage(
                embed_dims[i],
                depths[i],
                num_clusters[i],
                finer=embed_dims[i - 1] if i else None,
                coarser=embed_dims[i + 1] if finest <= i < top else None,
            )
            for i in range(len(embed_dims))
        )

    def forward(self, x: Tensor) -> tuple[list[Tensor], list[Tensor | None]]:
        """Run the bottom-up and the top-down pass.

        Args:
            x: output of the stem, (B, H, W, C1).

        Returns:
            Per stage, the feature map to be added to the output of its blocks, (B, H, W, C), and
            its assignment, (B, M, N), or None if M = 0.
        """
        x = x.permute(0, 3, 1, 2)  # (B, H, W, C) -> (B, C, H, W), a view
        stages = cast(list[TeacherStage], [*self.stages])
        features = []
        for stage in stages:
            x = stage.down(x)
            features.append(x)
        assignments = []
        for stage, feature in zip(reversed(stages), reversed(features), strict=True):
            x = stage.up(feature, x)
            assignments.append(stage.assignment(x))
        return [feature.permute(0, 2, 3, 1) for feature in features], assignments[::-1]
