"""Patch-to-cluster attention (paper, section 3.1)."""

from torch import Tensor, nn
from torch.nn.init import trunc_normal_

from .clustering import assign, build_clustering, pool
from .fast_paths import DEFAULT, FastPaths
from .layers import NORM_EPS, parameter


class PatchToClusterAttention(nn.Module):
    """Multi-head attention with patches as queries and clusters as keys and values.

    The cost is O(N * M * C), linear in the number of patches N. With ``num_clusters=0`` it is plain
    self-attention, whose cost is quadratic.

    Args:
        embed_dims: channels C.
        num_heads: number of heads h; must divide C.
        num_clusters: number of clusters M; 0 for plain self-attention.
        clustering: ``'conv' | 'mlp' | 'linear'`` if this block computes the assignment; None if
            an earlier block or the teacher provides it.
        cluster_pos_embed: learn an (M, C) position embedding that is added to the clusters.
        sub_norm: add a LayerNorm before the output projection.
        attn_drop_rate: dropout rate of the attention weights.
        drop_rate: dropout rate of the output.
        fast: fast paths.

    Raises:
        ValueError: C is not divisible by h, or ``clustering`` is unknown.

    Example:
        >>> import torch
        >>> from mmpaca.models import PatchToClusterAttention
        >>> attention = PatchToClusterAttention(64, num_heads=2, num_clusters=10, clustering='conv')
        >>> patches, assignment = attention(torch.rand(1, 8, 12, 64))
        >>> tuple(patches.shape), tuple(assignment.shape)
        ((1, 8, 12, 64), (1, 10, 96))
    """

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        num_clusters: int = 0,
        clustering: str | None = None,
        cluster_pos_embed: bool = False,
        sub_norm: bool = False,
        attn_drop_rate: float = 0.0,
        drop_rate: float = 0.0,
        fast: FastPaths = DEFAULT,
    ) -> None:
        super().__init__()
        if embed_dims % num_heads:
            raise ValueError(f'embed_dims={embed_dims} is not divisible by num_heads={num_heads}')
        self.fast = fast
        self.num_heads = num_heads
        self.num_clusters = num_clusters
        self.attn_drop_rate = attn_drop_rate
        self.clustering = None
        if num_clusters:
            if clustering is not None:
                self.clustering = build_clustering(clustering, embed_dims, num_clusters)
            self.cluster_norm = nn.LayerNorm(embed_dims, eps=NORM_EPS)
            self.cluster_pos_embed = (
                parameter(num_clusters, embed_dims) if cluster_pos_embed else None
            )
        self.q = nn.Linear(embed_dims, embed_dims)
        self.k = nn.Linear(embed_dims, embed_dims)
        self.v = nn.Linear(embed_dims, embed_dims)
        self.norm = nn.LayerNorm(embed_dims, eps=NORM_EPS) if sub_norm else nn.Identity()
        self.proj = nn.Linear(embed_dims, embed_dims)
        self.proj_drop = nn.Dropout(drop_rate)

    def reset_parameters(self) -> None:
        """Initialise the position embedding of the clusters."""
        if self.num_clusters and self.cluster_pos_embed is not None:
            trunc_normal_(self.cluster_pos_embed, std=0.02)

    def forward(self, x: Tensor, assignment: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Compute the attention.

        Args:
            x: normalised patches, (B, H, W, C).
            assignment: Z of an earlier block or of the teacher, (B, M, N) with N = H * W. Ignored
                if this block computes its own.

        Returns:
            Output patches, (B, H, W, C), and the assignment that was used (None if M = 0).

        Raises:
            ValueError: an assignment is required and was not given.
        """
        cast = self.fast.cast(x)
        if self.clustering is not None:
            assignment = assign(self.fast.call(self.clustering, cast))
        patches = cast.flatten(1, 2)  # (B, H, W, C) -> (B, N, C)
        if not self.num_clusters:
            clusters = patches
        elif assignment is None:
            raise ValueError(
                'this block computes no assignment and none was given: pass assignment'
            )
        else:
            clusters = self.fast.cast(self.pool_clusters(x.flatten(1, 2), assignment))
        return self.attend(patches, clusters).view(x.shape), assignment

    def pool_clusters(self, patches: Tensor, assignment: Tensor) -> Tensor:
        """Pool patches (B, N, C) by an assignment (B, M, N) into normalised clusters (B, M, C)."""
        clusters = pool(assignment, patches)
        if self.cluster_pos_embed is not None:
            clusters = clusters + self.cluster_pos_embed
        return self.cluster_norm(clusters)

    def attend(self, patches: Tensor, clusters: Tensor) -> Tensor:
        """Attend from patches (B, N, C) to clusters (B, M, C) and project; returns (B, N, C)."""
        q, k, v = (
            # (B, L, C) -> (B, L, h, d) -> (B, h, L, d), views
            linear(tokens).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for linear, tokens in ((self.q, patches), (self.k, clusters), (self.v, clusters))
        )
        out = self.fast.attention(q, k, v, self.attn_drop_rate if self.training else 0.0)
        out = out.transpose(1, 2).flatten(2)  # (B, h, N, d) -> (B, N, C)
        return self.proj_drop(self.proj(self.norm(out)))
