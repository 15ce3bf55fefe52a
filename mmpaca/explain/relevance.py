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


def relevance(
    trace: Trace,
    reference: Trace,
    scores: Sequence[Tensor],
    input_shape: tuple[int, int],
    attention: bool = True,
) -> Tensor:
    """Relevance of the pixels of one traced image to scores.

    Args:
        trace: forward pass of one image.
        reference: forward pass of the same image without what may be relevant: a blurred one.
        scores: D scalars that depend on the image.
        input_shape: (height, width) of the network's input.
        attention: carry relevance through the attention of all blocks. If not, it stays at the
            patches of each stage's output where it starts, and nothing behind the outputs is
            differentiated.

    Returns:
        (D, height, width) >= 0.
    """
    return torch.stack([_flow(trace, reference, one, input_shape, attention) for one in scores])


def _flow(
    trace: Trace, reference: Trace, score: Tensor, input_shape: tuple[int, int], attention: bool
) -> Tensor:
    stages = trace.blocks if attention else [[] for _ in trace.blocks]
    blocks = [block for stage in stages for block in stage]
    wanted = [*trace.outputs.values()]
    for block in blocks:
        wanted += [block.branch, block.attended]
    # Of a stage that the score does not read: zeros.
    gradients = iter(torch.autograd.grad(score, wanted, retain_graph=True, materialize_grads=True))
    started = {
        i: ((out.detach() - reference.outputs[i]) * next(gradients)).sum(1).clamp(min=0)
        for i, out in trace.outputs.items()
    }
    by_block = {id(block): (next(gradients), next(gradients)) for block in blocks}
    flow = torch.zeros_like(started[max(started)])
    for i in reversed(range(max(started) + 1)):
        if i in started:
            flow = started[i] + _spread(flow, started[i].shape[1:])
        for block, other in zip(reversed(stages[i]), reversed(reference.blocks[i]), strict=False):
            flow = _spread(flow, block.x.shape[1:3])
            flow = through_attention(flow, block, other, *by_block[id(block)])
    return _spread(flow, input_shape)[0]


def _spread(flow: Tensor, size: Sequence[int]) -> Tensor:
    """Interpolate a map (1, h, w) to a finer one, with the same sum."""
    if flow.shape[1:] == tuple(size):
        return flow
    finer = F.interpolate(flow[None], size=tuple(size), mode='bilinear', align_corners=False)[0]
    return finer * (flow.sum() / finer.sum().clamp(min=torch.finfo(flow.dtype).tiny))


def through_attention(
    flow: Tensor,
    block: BlockTrace,
    reference: BlockTrace,
    branch_gradient: Tensor,
    attended_gradient: Tensor,
) -> Tensor:
    """Carry relevance from the output of an attention branch and its residual to the input.

    Args:
        flow: (1, H, W) >= 0.
        block: the branch.
        reference: the same branch for the reference image.
        branch_gradient: gradient with respect to ``block.branch``, (1, H, W, C).
        attended_gradient: gradient with respect to ``block.attended``, (1, N, C).

    Returns:
        (1, H, W) >= 0. What a cluster takes from everywhere alike is left out, it is in no place.
    """
    tiny = torch.finfo(flow.dtype).tiny
    # What arrives at x + branch is shared by what the change of either contributed.
    added, kept = (
        ((mine.detach() - its) * branch_gradient).sum(-1).abs()
        for mine, its in ((block.branch, reference.branch), (block.x, reference.x))
    )
    share = added / (added + kept).clamp(min=tiny)  # (1, H, W)
    q, k, v, gradient = (
        # (1, L, C) -> (h, L, d)
        t.detach()[0].unflatten(-1, (block.num_heads, -1)).transpose(0, 1)
        for t in (block.q, block.k, block.v, attended_gradient)
    )
    weights = (q @ k.transpose(1, 2) / math.sqrt(q.shape[-1])).softmax(-1)  # A, (h, N, M)
    weights = (weights * (gradient @ v.transpose(1, 2))).sum(0)  # times its gradient, (N, M)
    weights = weights / weights.abs().sum(1, keepdim=True).clamp(min=tiny)
    moved = (flow * share).flatten() @ weights  # (M,)
    everywhere = moved.sum() / flow.numel()  # of each row of Z the mean is 1 / N
    if block.assignment is not None:
        moved = moved @ block.assignment.detach()[0].to(moved)  # (M,) (M, N) -> (N,)
    moved = (moved - everywhere).unflatten(0, flow.shape[1:])[None]
    return (flow * (1 - share) + moved).clamp(min=0)
