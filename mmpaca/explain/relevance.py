"""Relevance of image regions to a score: gradients carried through PaCa-ViT's own factors A and Z.

docs/trust.md has the formulas. Attention A Z of patches to patches is never formed: a map of N
patches goes through A and then through Z, which costs O(N M).
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .trace import BlockTrace, Trace


def relevance(trace: Trace, scores: Sequence[Tensor], input_shape: tuple[int, int]) -> Tensor:
    """Relevance of the pixels of one traced image to scores.

    Args:
        trace: forward pass of one image.
        scores: D scalars that depend on it.
        input_shape: (height, width) of the network's input.

    Returns:
        (D, height, width) >= 0.
    """
    return torch.stack([_flow(trace, score, input_shape) for score in scores])


def _flow(trace: Trace, score: Tensor, input_shape: tuple[int, int]) -> Tensor:
    blocks = [block for stage in trace.blocks for block in stage]
    wanted = [*trace.outputs.values()]
    for block in blocks:
        wanted += [block.branch, block.attended]
    # Of a stage that the score does not read: zeros.
    gradients = iter(torch.autograd.grad(score, wanted, retain_graph=True, materialize_grads=True))
    started = {i: _contribution(out, next(gradients)) for i, out in trace.outputs.items()}
    by_block = {id(block): (next(gradients), next(gradients)) for block in blocks}
    flow: Tensor | None = None
    for i in reversed(range(len(trace.blocks))):
        stage = trace.blocks[i]
        if not stage:
            continue
        size = stage[0].x.shape[1:3]
        if flow is not None:
            flow = _spread(flow, size)
        if i in started:
            flow = started[i] if flow is None else flow + started[i]
        if flow is None:
            continue
        for block in reversed(stage):
            flow = through_attention(flow, block, *by_block[id(block)])
    assert flow is not None
    return _spread(flow, input_shape)[0]


def _contribution(x: Tensor, gradient: Tensor) -> Tensor:
    """Positive part of gradient times activation: (1, C, H, W) to (1, H, W)."""
    return (x.detach() * gradient).sum(1).clamp(min=0)


def _spread(flow: Tensor, size: Sequence[int]) -> Tensor:
    """Interpolate a map (1, h, w) to a finer one, with the same sum."""
    finer = F.interpolate(flow[None], size=tuple(size), mode='bilinear', align_corners=False)[0]
    return finer * (flow.sum() / finer.sum().clamp(min=torch.finfo(flow.dtype).tiny))


def through_attention(
    flow: Tensor, block: BlockTrace, branch_gradient: Tensor, attended_gradient: Tensor
) -> Tensor:
    """Carry relevance from the output of an attention branch and its residual to the input.

    Args:
        flow: (1, H, W) >= 0.
        block: the branch.
        branch_gradient: gradient with respect to ``block.branch``, (1, H, W, C).
        attended_gradient: gradient with respect to ``block.attended``, (1, N, C).

    Returns:
        (1, H, W) >= 0 with the same sum.
    """
    size, heads = flow.shape[1:], block.num_heads
    # What arrives at x + branch is shared by what either contributed.
    added = (block.branch.detach() * branch_gradient).sum(-1).abs()  # (1, H, W)
    kept = (block.x.detach() * branch_gradient).sum(-1).abs()
    share = added / (added + kept).clamp(min=torch.finfo(flow.dtype).tiny)
    q, k, v, gradient = (
        # (1, L, C) -> (h, L, d)
        t.detach()[0].unflatten(-1, (heads, -1)).transpose(0, 1)
        for t in (block.q, block.k, block.v, attended_gradient)
    )
    attention = (q @ k.transpose(1, 2) / math.sqrt(q.shape[-1])).softmax(-1)  # (h, N, M)
    weights = (attention * (gradient @ v.transpose(1, 2))).clamp(min=0).sum(0)  # (N, M)
    total = weights.sum(1, keepdim=True)
    # A patch that no cluster helps attends as it attends.
    weights = torch.where(total > 0, weights / total, attention.mean(0))
    moved = (flow * share).flatten() @ weights  # (M,)
    if block.assignment is not None:
        moved = moved @ block.assignment.detach()[0].to(moved)  # (M,) (M, N) -> (N,)
    return flow * (1 - share) + moved.unflatten(0, size)[None]
