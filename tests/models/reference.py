"""PaCa-ViT as one would first write it: the standard modules and the paper's shapes.

Slow and readable, for comparison with mmpaca.models; same parameters, same names. Tokens are
(B, N, C), every convolution copies them to a (B, C, H, W) map and back, and attention is
``nn.MultiheadAttention``'s function. Stage-wise ``conv`` clustering only.
"""

import torch
import torch.nn.functional as F
from mmengine.registry import MODELS
from torch import Tensor, nn

from mmpaca.models import PaCaViT


def to_map(tokens: Tensor, size: tuple[int, int]) -> Tensor:
    return tokens.transpose(1, 2).reshape(len(tokens), -1, *size).contiguous()


def to_tokens(maps: Tensor) -> Tensor:
    return maps.flatten(2).transpose(1, 2).contiguous()


def attention(attn: nn.Module, x: Tensor, clusters: Tensor) -> Tensor:
    """Multi-head attention of tokens (B, N, C) to clusters (B, M, C)."""
    out, _ = F.multi_head_attention_forward(
        *(t.transpose(0, 1) for t in (x, clusters, clusters)),
        embed_dim_to_check=x.shape[-1],
        num_heads=attn.num_heads,
        in_proj_weight=None,
        in_proj_bias=torch.cat([attn.q.bias, attn.k.bias, attn.v.bias]),
        bias_k=None,
        bias_v=None,
        add_zero_attn=False,
        dropout_p=0.0,
        out_proj_weight=attn.proj.weight,
        out_proj_bias=attn.proj.bias,
        training=attn.training,
        use_separate_proj_weight=True,
        q_proj_weight=attn.q.weight,
        k_proj_weight=attn.k.weight,
        v_proj_weight=attn.v.weight,
    )
    return out.transpose(0, 1)


def mlp(module: nn.Module, x: Tensor, size: tuple[int, int]) -> Tensor:
    hidden = module.fc1(x)
    mixed = to_tokens(module.dwconv(to_map(hidden, size)))
    return module.fc2(F.gelu(hidden + mixed))


@MODELS.register_module()
class ReferencePaCaViT(PaCaViT):
    """PaCaViT with a forward pass in the plain way; no drop path, no options."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        maps = self.stem.convs(x)
        outs = []
        for stage in self.stages:
            if stage.downsample is not None:
                maps = stage.downsample.conv(maps)
            size = maps.shape[-2:]
            tokens = to_tokens(maps)
            norm = self.stem.norm if stage.downsample is None else stage.downsample.norm
            tokens = norm(tokens)
            assignment = None
            for block in stage.blocks:
                normed = block.norm1(tokens)
                clusters = normed
                if block.attn.num_clusters:
                    if assignment is None:
                        layers = nn.Sequential(*block.attn.clustering)
                        assignment = layers(to_map(normed, size)).flatten(2).softmax(-1)
                    clusters = block.attn.cluster_norm(assignment @ normed)
                tokens = tokens + attention(block.attn, normed, clusters)
                tokens = tokens + mlp(block.mlp, block.norm2(tokens), size)
            maps = to_map(stage.norm(tokens), size)
            outs.append(maps)
        return tuple(outs)
