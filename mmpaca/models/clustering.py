"""Patches to assignment: which patch belongs to which cluster (paper, section 3.2)."""

from torch import Tensor, nn


def assign(logits: Tensor) -> Tensor:
    """Softmax over the patches, so that every cluster is a weighted mean of patches.

    Args:
        logits: (B, M, H, W), one map per cluster.

    Returns:
        The assignment Z, (B, M, N) with N = H * W; every row sums to one.
    """
    return logits.flatten(2).softmax(dim=-1)


class ConvClustering(nn.Sequential):
    """Depthwise 7x7, GELU, 1x1, GELU, 1x1: the default.

    Maps (B, H, W, C) patches to (B, M, H, W) logits.
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
        return super().forward(x.permute(0, 3, 1, 2))  # (B, H, W, C) -> (B, C, H, W), a view


class MLPClustering(nn.Sequential):
    """Linear to 4C, GELU, linear to M. Maps (B, H, W, C) patches to (B, M, H, W) logits."""

    def __init__(self, embed_dims: int, num_clusters: int) -> None:
        super().__init__(
            nn.Linear(embed_dims, 4 * embed_dims),
            nn.GELU(),
            nn.Linear(4 * embed_dims, num_clusters),
        )

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).permute(0, 3, 1, 2)  # (B, H, W, M) -> (B, M, H, W), a view


class LinearClustering(nn.Sequential):
    """One linear layer without bias. Maps (B, H, W, C) patches to (B, M, H, W) logits."""

    def __init__(self, embed_dims: int, num_clusters: int) -> None:
        super().__init__(nn.Linear(embed_dims, num_clusters, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).permute(0, 3, 1, 2)  # (B, H, W, M) -> (B, M, H, W), a view


_CLASSES = dict(conv=ConvClustering, mlp=MLPClustering, linear=LinearClustering)
CLUSTERINGS = tuple(_CLASSES)


def build_clustering(kind: str, embed_dims: int, num_clusters: int) -> nn.Sequential:
    """The clustering module of one block.

    Args:
        kind: one of :data:`CLUSTERINGS`.
        embed_dims: channels C of the patches.
        num_clusters: M > 0.

    Raises:
        ValueError: ``kind`` is unknown.
    """
    if kind not in _CLASSES:
        raise ValueError(f'clustering={kind!r} is unknown, choose one of {CLUSTERINGS}')
    return _CLASSES[kind](embed_dims, num_clusters)
