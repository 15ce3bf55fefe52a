"""Clustering modules: assignment of patches to clusters (paper, section 3.2)."""

from typing import cast

import torch
from torch import Tensor, nn

from mmpaca.ops.precision import without_autocast, working_dtype


@without_autocast
def assign(logits: Tensor) -> Tensor:
    """Normalise logits over the patches, so that every cluster is a weighted mean of patches.

    In float32 or float64, also in half-precision models: with tens of thousands of patches most
    weights are subnormal numbers of float16.

    Args:
        logits: (B, M, H, W), one map per cluster.

    Returns:
        Assignment Z, (B, M, N) with N = H * W; every row sums to one.
    """
    return logits.flatten(2).to(working_dtype(logits)).softmax(dim=-1)


@without_autocast
def pool(assignment: Tensor, patches: Tensor) -> Tensor:
    """Pool patches into clusters, Z x, in float32 or float64 for any precision of the model.

    Half-precision matrix products may round partial sums over the patches, and under autocast Z
    and x are float32 already: pooling them as they are saves the casts.

    Args:
        assignment: Z, (B, M, N).
        patches: x, (B, N, C).

    Returns:
        Clusters, (B, M, C), in the precision of ``patches``.
    """
    dtype = working_dtype(assignment, patches)
    return torch.matmul(assignment.to(dtype), patches.to(dtype)).to(patches.dtype)


@without_autocast
def cluster_logits(x: Tensor, layer: nn.Linear | nn.Conv2d) -> Tensor:
    """Apply the last linear layer of a clustering module.

    Softmax and pooling read the patches of a cluster contiguously: W x^T needs no copy for that,
    x W^T would. In float32 or float64: softmax turns the rounding of a logit of 36 to bfloat16 into
    an error of 4 %.

    Args:
        x: features of the patches, (B, H, W, C).
        layer: linear layer or 1x1 convolution from C to M channels.

    Returns:
        Logits, (B, M, H, W), contiguous.
    """
    dtype = working_dtype(x)
    # (M, C) or (M, C, 1, 1) -> (M, C), by way of channels-last, see match_gradient_strides
    weight = layer.weight.to(dtype).movedim(1, -1).flatten(1)
    weight = weight.expand(x.shape[0], -1, -1)  # (B, M, C)
    patches = x.to(dtype).flatten(1, 2).transpose(1, 2)  # (B, H, W, C) -> (B, C, N), a view
    if layer.bias is None:
        logits = torch.bmm(weight, patches)
    else:
        logits = torch.baddbmm(layer.bias.to(dtype)[:, None], weight, patches)
    return logits.unflatten(2, x.shape[1:3])  # (B, M, N) -> (B, M, H, W)


class ConvClustering(nn.Sequential):
    """Depthwise 7x7 convolution, GELU, 1x1 convolution, GELU, 1x1 convolution (the default).

    Args:
        embed_dims: channels C of the patches.
        num_clusters: number of clusters M > 0.
    """

    def __init__(self, embed_dims: int, num_clusters: int) -> None:
        super().__init__(
            nn.Conv2d(embed_dims, embed_dims, 7, padding=3, groups=embed_dims),
            nn.GELU(),
            nn.Conv2d(embed_dims, embed_dims, 1),
            nn.GELU(),
            nn.Conv2d(embed_dims, num_clusters, 1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map patches (B, H, W, C) to logits (B, M, H, W)."""
        *layers, last = self
        x = x.permute(0, 3, 1, 2)  # (B, H, W, C) -> (B, C, H, W), a view
        for layer in layers:
            x = layer(x)
        # (B, C, H, W) -> (B, H, W, C), a view
        return cluster_logits(x.permute(0, 2, 3, 1), cast(nn.Conv2d, last))


class MLPClustering(nn.Sequential):
    """Linear layer to 4C channels, GELU, linear layer to M.

    Args:
        embed_dims: channels C of the patches.
        num_clusters: number of clusters M > 0.
    """

    def __init__(self, embed_dims: int, num_clusters: int) -> None:
        super().__init__(
            nn.Linear(embed_dims, 4 * embed_dims),
            nn.GELU(),
            nn.Linear(4 * embed_dims, num_clusters),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map patches (B, H, W, C) to logits (B, M, H, W)."""
        expand, act, last = self
        return cluster_logits(act(expand(x)), cast(nn.Linear, last))


class LinearClustering(nn.Sequential):
    """One linear layer without bias.

    Args:
        embed_dims: channels C of the patches.
        num_clusters: number of clusters M > 0.
    """

    def __init__(self, embed_dims: int, num_clusters: int) -> None:
        super().__init__(nn.Linear(embed_dims, num_clusters, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """Map patches (B, H, W, C) to logits (B, M, H, W)."""
        return cluster_logits(x, cast(nn.Linear, self[0]))


_CLASSES = dict(conv=ConvClustering, mlp=MLPClustering, linear=LinearClustering)
CLUSTERINGS = tuple(_CLASSES)


def build_clustering(kind: str, embed_dims: int, num_clusters: int) -> nn.Sequential:
    """Build the clustering module of one block.

    Args:
        kind: one of :data:`CLUSTERINGS`.
        embed_dims: channels C of the patches.
        num_clusters: number of clusters M > 0.

    Raises:
        ValueError: ``kind`` is unknown.
    """
    if kind not in _CLASSES:
        raise ValueError(f'clustering={kind!r} is unknown, choose one of {CLUSTERINGS}')
    return _CLASSES[kind](embed_dims, num_clusters)
