"""Record assignment and attention of the clusters of PaCa-ViT and PaCaSegHead in a forward pass.

Forward hooks, attached only while recording, recompute both from the input of each attention module
in float32, step by step as in sections 3.1 and 3.2 of the paper. The model itself is unchanged.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import functional_call

from mmpaca.models import PaCaSegHead, PaCaViT, PatchToClusterAttention
from mmpaca.models.clustering import assign


@dataclass
class BlockRecord:
    """Assignment and attention of one block for a batch of B images. Indices count from 0.

    Attributes:
        stage: index of the stage.
        block: index of the block in its stage.
        stride: side of a patch in pixels of the network's input.
        assignment: Z, (B, M, H, W); each of the M maps sums to one.
        attention: A, (B, heads, H, W, M), the weights of a patch sum to one; None if it was not
            recorded, see :func:`record`.
        is_head: True for the segmentation head, whose clusters are the classes; ``stage`` is then
            the number of stages.
    """

    stage: int
    block: int
    stride: int
    assignment: Tensor
    attention: Tensor | None
    is_head: bool = False

    @property
    def title(self) -> str:
        """``'stage1'`` (counted from 1) or ``'head'``, as metrics call it."""
        return 'head' if self.is_head else f'stage{self.stage + 1}'

    def recorded_attention(self) -> Tensor:
        """Return A, (B, heads, H, W, M).

        Raises:
            ValueError: A was not recorded.
        """
        if self.attention is None:
            raise ValueError(
                f'the attention of stage {self.stage}, block {self.block} was not recorded: '
                "record(model, attention='all')"
            )
        return self.attention

    def relevance(self, queries: Tensor, head: int | None = None) -> Tensor:
        """Relevance of every patch to the queried patches: rows of A Z.

        The full A Z has N x N entries; only the queried rows are computed.

        Args:
            queries: (B, Q, H, W) weights >= 0: one-hot for a patch, a mask for the mean over the
                patches of a region.
            head: index of an attention head; None for the mean of all heads.

        Returns:
            (B, Q, H, W); each of the Q maps sums to one.
        """
        attention = self.recorded_attention()
        attention = attention.mean(1) if head is None else attention[:, head]
        weights = queries.to(attention).flatten(2)  # (B, Q, H, W) -> (B, Q, N)
        weights = weights / weights.sum(-1, keepdim=True)
        clusters = weights @ attention.flatten(1, 2)  # (B, Q, N) (B, N, M) -> (B, Q, M)
        relevance = clusters @ self.assignment.flatten(2)  # (B, Q, M) (B, M, N) -> (B, Q, N)
        return relevance.unflatten(-1, self.assignment.shape[-2:])

    def received(self) -> Tensor:
        """Share of all attention that each cluster receives, (B, M), rows sum to one."""
        return self.recorded_attention().mean((1, 2, 3))

    def labels(self) -> Tensor:
        """Strongest cluster of each patch, (B, H, W) int64: argmax of Z over clusters."""
        return self.assignment.argmax(1)


@dataclass
class Recording:
    """Records of the latest forward pass.

    Attributes:
        blocks: records by (stage, block), in the order of computation.
        input_shape: (height, width) of the network's input in pixels, including padding.
        left_out: skipped stages: those without clusters (M = 0), which attend to patches.
    """

    blocks: dict[tuple[int, int], BlockRecord] = field(default_factory=dict)
    input_shape: tuple[int, int] | None = None
    left_out: tuple[int, ...] = ()

    def last_blocks(self) -> list[BlockRecord]:
        """Return the record of the last block of each stage."""
        return list({stage: block for (stage, _), block in self.blocks.items()}.values())


@contextmanager
def record(model: nn.Module, attention: str = 'all') -> Iterator[Recording]:
    """Record the clusters of the PaCaViT inside a model, and of its PaCaSegHead if it has one.

    Works under ``no_grad`` and autocast and on any device. Records are detached, in float32 (float64
    for a float64 model), and on the model's device.

    Args:
        model: a PaCaViT, or a detector, classifier, segmentor or wrapper that contains one.
        attention: blocks whose A is recorded: ``'all'``, ``'last'`` of each stage or ``'none'``. A is
            heads times larger than Z: 54 MB per image and block of PaCa-T's first stage at
            800 x 1344, 376 MB for all blocks of PaCa-S.

    Yields:
        A :class:`Recording`; every forward pass overwrites it.

    Raises:
        ValueError: the model has no PaCaViT, or several, or no stage has clusters; ``attention`` is
            unknown.

    Example:
        >>> import torch
        >>> import mmpaca
        >>> model = mmpaca.models.PaCaViT('tiny').eval()
        >>> with torch.no_grad(), mmpaca.explain.record(model) as recording:
        ...     _ = model(torch.rand(1, 3, 64, 96))
        >>> recording.left_out
        (3,)
        >>> block = recording.blocks[0, 1]
        >>> tuple(block.assignment.shape), tuple(block.attention.shape)
        ((1, 100, 16, 24), (1, 2, 16, 24, 100))
    """
    if attention not in ('all', 'last', 'none'):
        raise ValueError(f"attention={attention!r} is unknown, choose 'all', 'last' or 'none'")
    backbone = find_backbone(model)
    if not any(backbone.num_clusters):
        raise ValueError(
            f'num_clusters={backbone.num_clusters}: this PaCaViT has no clusters to record, every '
            'stage attends to patches'
        )
    recording = Recording(
        left_out=tuple(i for i, clusters in enumerate(backbone.num_clusters) if not clusters)
    )
    hooks = _Hooks(recording, attention)
    handles = hooks.attach(backbone)
    heads = [module for module in model.modules() if isinstance(module, PaCaSegHead)]
    handles += [head.register_forward_hook(hooks.record_head) for head in heads]
    try:
        yield recording
    finally:
        for handle in handles:
            handle.remove()


def find_backbone(model: nn.Module) -> PaCaViT:
    """Find the PaCaViT inside a model.

    Raises:
        ValueError: there is none, or several.
    """
    found = {name: m for name, m in model.named_modules() if isinstance(m, PaCaViT)}
    if len(found) != 1:
        raise ValueError(
            f'{type(model).__name__} has {len(found)} PaCaViT backbones ({", ".join(found)}); '
            'pass a module that contains exactly one'
        )
    (backbone,) = found.values()
    return backbone


class _Hooks:
    """Hooks of one recording, and the current assignment of each stage."""

    def __init__(self, recording: Recording, attention: str) -> None:
        self.recording = recording
        self.attention = attention
        self.assignments: dict[int, Tensor] = {}

    def attach(self, backbone: PaCaViT) -> list:
        """Attach hooks to the backbone, its teacher and every attention module with clusters."""
        handles = [backbone.register_forward_pre_hook(self._start)]
        if backbone.teacher is not None:
            handles.append(backbone.teacher.register_forward_hook(self._take_assignments))
        self.num_stages = len(backbone.depths)
        self.finest = backbone.out_indices[0]
        stem = [m for m in backbone.stem.modules() if isinstance(m, nn.Conv2d)]
        self.stride = math.prod(conv.stride[0] for conv in stem)
        for i, depth in enumerate(backbone.depths):
            for j in range(depth if backbone.num_clusters[i] else 0):
                wanted = self.attention == 'all' or (self.attention == 'last' and j == depth - 1)
                # Each stage halves the resolution.
                hook = partial(self._record, i, j, self.stride * 2**i, wanted)
                attention = backbone.get_submodule(f'stages.{i}.blocks.{j}.attn')
                handles.append(attention.register_forward_hook(hook))
        return handles

    @torch.no_grad()
    def record_head(self, head: PaCaSegHead, inputs: tuple, output: Tensor) -> None:
        """Record the segmentation head; in training mode its norms would count the pass twice."""
        if head.training:
            return
        assignment, attention = head.assignment_and_attention(inputs[0])
        wanted = self.attention != 'none'
        self.recording.blocks[self.num_stages, 0] = BlockRecord(
            stage=self.num_stages,
            block=0,
            stride=self.stride * 2**self.finest,
            assignment=assignment,
            attention=attention.unsqueeze(1) if wanted else None,  # (B, 1, H, W, K)
            is_head=True,
        )

    def _start(self, backbone: PaCaViT, inputs: tuple) -> None:
        self.assignments.clear()
        self.recording.blocks.clear()
        self.recording.input_shape = tuple(inputs[0].shape[-2:])

    def _take_assignments(self, teacher: nn.Module, inputs: tuple, outputs: tuple) -> None:
        _, assignments = outputs
        for stage, assignment in enumerate(assignments):
            if assignment is not None:
                self.assignments[stage] = _raise_precision(assignment.detach())

    @torch.no_grad()
    def _record(
        self,
        stage: int,
        block: int,
        stride: int,
        with_attention: bool,
        module: PatchToClusterAttention,
        inputs: tuple,
        output: tuple,
    ) -> None:
        x = _raise_precision(inputs[0].detach())
        with torch.autocast(x.device.type, enabled=False):
            if module.clustering is not None:
                self.assignments[stage] = assign(_call(module.clustering, x))
            assignment = self.assignments[stage]
            attention = attention_to_clusters(module, x, assignment) if with_attention else None
        self.recording.blocks[stage, block] = BlockRecord(
            stage=stage,
            block=block,
            stride=stride,
            # (B, M, N) -> (B, M, H, W)
            assignment=assignment.unflatten(-1, x.shape[1:3]),
            attention=attention,
        )


def attention_to_clusters(module: PatchToClusterAttention, x: Tensor, assignment: Tensor) -> Tensor:
    """Compute softmax(q k^T / sqrt(d)).

    Args:
        module: attention with clusters.
        x: its input, the normalised patches, (B, H, W, C).
        assignment: Z, (B, M, N).

    Returns:
        A, (B, heads, H, W, M).
    """
    patches = x.flatten(1, 2)  # (B, H, W, C) -> (B, N, C)
    clusters = assignment @ patches  # (B, M, C)
    if module.cluster_pos_embed is not None:
        clusters = clusters + module.cluster_pos_embed.to(x)
    clusters = _call(module.cluster_norm, clusters)
    # (B, L, C) -> (B, L, h, d) -> (B, h, L, d)
    q, k = (
        _call(linear, tokens).unflatten(-1, (module.num_heads, -1)).transpose(1, 2)
        for linear, tokens in ((module.q, patches), (module.k, clusters))
    )
    logits = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])  # (B, h, N, M)
    return logits.softmax(-1).unflatten(2, x.shape[1:3])  # (B, h, N, M) -> (B, h, H, W, M)


def _raise_precision(x: Tensor) -> Tensor:
    """Convert half precision to float32."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _call(module: nn.Module, x: Tensor) -> Tensor:
    """Call a module in the precision of its input, whatever the precision of its weights."""
    return functional_call(module, {k: v.to(x) for k, v in module.named_parameters()}, (x,))
