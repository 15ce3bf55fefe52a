"""The tensors of a forward pass through PaCa-ViT that relevance flows through, with their graph."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

from torch import Tensor, nn

from mmpaca.models import PaCaViT
from mmpaca.models.paca_vit import PaCaStage


@dataclass
class BlockTrace:
    """The attention branch of a block.

    Attributes:
        x: input of the block, (B, H, W, C).
        branch: what the attention adds to it, (B, H, W, C).
        q: queries, (B, N, C).
        k: keys of M clusters, or of N patches, (B, M, C).
        v: values, (B, M, C).
        attended: weighted values before the projection, (B, N, C).
        assignment: Z, (B, M, N); None if the block attends to patches.
        num_heads: number of heads.
    """

    x: Tensor
    branch: Tensor
    q: Tensor
    k: Tensor
    v: Tensor
    attended: Tensor
    assignment: Tensor | None
    num_heads: int


@dataclass
class Trace:
    """One forward pass.

    Attributes:
        blocks: per stage, the blocks in order.
        outputs: by index of the stage, the map that the neck or head takes, (B, C, H, W): a
            gradient with respect to it knows nothing of later stages.
    """

    blocks: list[list[BlockTrace]] = field(default_factory=list)
    outputs: dict[int, Tensor] = field(default_factory=dict)


@contextmanager
def trace(backbone: PaCaViT) -> Iterator[Trace]:
    """Trace the forward pass inside the ``with`` block.

    Hooks are gone when the block ends: a backward pass that recomputes maps must come after it.

    Args:
        backbone: the backbone, in eval mode.

    Yields:
        The trace, filled by the forward pass.
    """
    found = Trace(blocks=[[] for _ in backbone.depths])
    handles = [backbone.register_forward_hook(partial(_take_outputs, found))]
    for blocks, stage in zip(found.blocks, backbone.stages, strict=True):
        for block in cast(PaCaStage, stage).blocks:
            handles += _attach(block, blocks)
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _take_outputs(found: Trace, backbone: PaCaViT, inputs: tuple, outputs: tuple) -> tuple:
    # A copy each: the map itself is also what the next stage starts from.
    taken = tuple(out.clone() for out in outputs)
    found.outputs = dict(zip(backbone.out_indices, taken, strict=True))
    return taken


def _attach(block: Any, blocks: list[BlockTrace]) -> list:
    """Collect the tensors of a block; complete when the branch is."""
    seen: dict[str, Any] = {}
    attention = block.attn

    def keep(name: str, module: nn.Module, inputs: tuple, output: Any = None) -> None:
        seen[name] = inputs[0] if output is None else output

    def finish(module: nn.Module, inputs: tuple, branch: Tensor) -> None:
        (_, assignment) = seen.pop('attention')
        has_clusters = attention.num_clusters > 0
        blocks.append(
            BlockTrace(
                branch=branch,
                assignment=assignment if has_clusters else None,
                num_heads=attention.num_heads,
                **seen,
            )
        )

    return [
        block.register_forward_pre_hook(partial(keep, 'x')),
        *(
            attention.get_submodule(name).register_forward_hook(partial(keep, name))
            for name in ('q', 'k', 'v')
        ),
        attention.norm.register_forward_pre_hook(partial(keep, 'attended')),
        attention.register_forward_hook(partial(keep, 'attention')),
        block.gamma1.register_forward_hook(finish),
    ]
