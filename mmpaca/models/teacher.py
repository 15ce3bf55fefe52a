"""The external clustering teacher: a small ConvNet that makes every stage's assignment.

Paper, section 3.3. It starts from the stem's patches, goes down the stages, and comes back up
like a feature pyramid, so that the assignment of an early stage knows what the last one saw.
Maps are (B, C, H, W) views in channels-last memory.
"""

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .clustering import assign, cluster_logits


class MixerBlock(nn.Module):
    """residual(depthwise 7x7, GELU, BN), then 1x1 convolution, GELU, BN.

    Args:
        channels: of the map.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm1 = nn.BatchNorm2d(channels)
        self.pointwise = nn.Conv2d(channels, channels, 1)
        self.norm2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """A map (B, C, H, W) to one of the same shape."""
        x = x + self.norm1(F.gelu(self.depthwise(x)))
        return self.norm2(F.gelu(self.pointwise(x)))


class ConvGELUNorm(nn.Module):
    """Convolution, GELU, BN.

    Args:
        in_channels: of the map.
        out_channels: of the result.
        kernel_size: of the convolution, odd; padded by half of it.
        stride: of the convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride=stride, padding=kernel_size // 2
        )
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """A map (B, C, H, W) to (B, C', H / stride, W / stride), rounded up."""
        return self.norm(F.gelu(self.conv(x)))


class BlurTransition(ConvGELUNorm):
    """A fixed binomial blur against aliasing, then a 3x3 convolution of stride 2, GELU, BN.

    Args:
        in_channels: channels of the stage before.
        out_channels: channels of the stage after.
    """

    blur_filter: Tensor

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size=3, stride=2)
        row = torch.tensor([1.0, 2.0, 1.0])
        kernel = torch.outer(row, row) / 16
        self.register_buffer('blur_filter', kernel.repeat(in_channels, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """A map (B, C, H, W) to (B, C', H/2, W/2), rounded up."""
        return super().forward(F.conv2d(x, self.blur_filter, padding=1, groups=x.shape[1]))


class TeacherStage(nn.Module):
    """What the teacher owns at one stage; a part that is not needed is None.

    Args:
        channels: channels of this stage.
        depth: blocks on the way down.
        num_clusters: M, or 0 where this stage attends to patches and needs no assignment.
        finer: channels of the stage before, None at the first.
        coarser: channels of the stage after, where a map comes back up from it.
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
        """The map of the stage before (or the stem's) to this stage's ``t``, (B, C, H, W)."""
        return self.blocks(x if self.transition is None else self.transition(x))

    def up(self, feature: Tensor, coarser: Tensor) -> Tensor:
        """The pyramid's map here, (B, C, H, W): ``t`` with that of the stage after merged in.

        Where no map comes back up, it is ``t`` itself.

        Args:
            feature: ``t`` of this stage, (B, C, H, W).
            coarser: the pyramid's map of the stage after, (B, C', H', W').
        """
        if self.lateral is None or self.smooth is None:
            return feature
        coarser = F.interpolate(coarser, size=feature.shape[-2:], mode='bilinear')
        return self.smooth(feature + self.lateral(coarser))

    def assignment(self, x: Tensor) -> Tensor | None:
        """Z, (B, M, N), of this stage's map of the pyramid; None where M = 0."""
        if self.to_clusters is None:
            return None
        return assign(cluster_logits(x.permute(0, 2, 3, 1), self.to_clusters))  # a view


class ClusteringTeacher(nn.Module):
    """Makes the assignment of every stage from the stem's patches.

    Args:
        embed_dims: channels per stage.
        depths: blocks per stage on the way down.
        num_clusters: M per stage; 0 where a stage needs no assignment.

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
        # The way up ends at the finest stage that needs an assignment: parameters below it
        # would never get a gradient.
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
        """Run down and up.

        Args:
            x: the stem's patches, (B, H, W, C1).

        Returns:
            Per stage, what is added to the output of its blocks, (B, H, W, C), and its
            assignment, (B, M, N), None where M = 0.
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
