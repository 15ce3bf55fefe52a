"""PaCa-ViT: block, stage and backbone (Grainger et al., CVPR 2023, arXiv:2203.11987).

Feature maps are (B, H, W, C) between the modules; :mod:`mmpaca.models.archs` has the variants.
"""

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from mmcv.cnn.bricks import DropPath, LayerScale
from mmengine.logging import print_log
from mmengine.model import BaseModule
from mmengine.registry import MODELS as ROOT_MODELS
from torch import Tensor, nn
from torch.compiler import is_compiling
from torch.nn.init import trunc_normal_
from torch.utils.checkpoint import checkpoint

from mmpaca.registry import MODELS

from .archs import check_arch
from .arguments import check_indices, check_rates, per_stage
from .attention import PatchToClusterAttention
from .clustering import CLUSTERINGS
from .fast_paths import DEFAULT, FastPaths, any_size
from .fitting import fit_state_dict
from .layers import (
    NORM_EPS,
    ConvMLP,
    Stem,
    Transition,
    init_module,
    match_gradient_strides,
    parameter,
)
from .teacher import ClusteringTeacher


class PaCaBlock(nn.Module):
    """Attention and MLP, each on a residual branch.

    Args:
        embed_dims: channels C.
        mlp_ratio: hidden channels of the MLP over C.
        attention: arguments of :class:`PatchToClusterAttention` except ``embed_dims``.
        drop_rate: dropout inside both branches.
        drop_path_rate: stochastic depth rate, per sample.
        layer_scale_init_value: initial layer scale of both branches; None disables it.
        post_norm: normalise the output of a branch instead of its input.
        sub_norm: add a LayerNorm before the last linear layer of both branches.
        fast: fast paths of both branches.
    """

    def __init__(
        self,
        embed_dims: int,
        mlp_ratio: float,
        attention: dict,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        layer_scale_init_value: float | None = None,
        post_norm: bool = False,
        sub_norm: bool = False,
        fast: FastPaths = DEFAULT,
    ) -> None:
        super().__init__()

        def gamma() -> nn.Module:
            if layer_scale_init_value is None:
                return nn.Identity()
            return LayerScale(embed_dims, scale=layer_scale_init_value)

        self.post_norm = post_norm
        self.norm1 = nn.LayerNorm(embed_dims, eps=NORM_EPS)
        self.attn = PatchToClusterAttention(
            embed_dims, drop_rate=drop_rate, sub_norm=sub_norm, fast=fast, **attention
        )
        self.gamma1 = gamma()
        self.norm2 = nn.LayerNorm(embed_dims, eps=NORM_EPS)
        self.mlp = ConvMLP(embed_dims, int(mlp_ratio * embed_dims), sub_norm, drop_rate, fast)
        self.gamma2 = gamma()
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: Tensor, assignment: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Run the block.

        Args:
            x: patches, (B, H, W, C).
            assignment: Z of an earlier block or of the teacher, (B, M, N); None if there is none.

        Returns:
            Patches, (B, H, W, C), and the assignment for the next block, (B, M, N) or None.
        """
        if self.post_norm:
            attended, assignment = self.attn(x, assignment)
            x = x + self.drop_path(self.gamma1(self.norm1(attended)))
            return x + self.drop_path(self.gamma2(self.norm2(self.mlp(x)))), assignment
        attended, assignment = self.attn(self.norm1(x), assignment)
        x = x + self.drop_path(self.gamma1(attended))
        return x + self.drop_path(self.gamma2(self.mlp(x, self.norm2))), assignment


class PaCaStage(nn.Module):
    """Downsampling (except in the first stage), blocks and a LayerNorm.

    Args:
        in_channels: channels of the previous stage; None in the first stage.
        embed_dims: channels C of this stage.
        blocks: arguments of each :class:`PaCaBlock` except ``embed_dims``.
        pos_embed_size: side of the learned position embedding in patches; None disables it.
        with_cp: recompute the blocks in the backward pass to save memory.
    """

    def __init__(
        self,
        in_channels: int | None,
        embed_dims: int,
        blocks: Sequence[dict],
        pos_embed_size: int | None = None,
        with_cp: bool = False,
    ) -> None:
        super().__init__()
        self.with_cp = with_cp
        self.downsample = None if in_channels is None else Transition(in_channels, embed_dims)
        self.pos_embed = None
        if pos_embed_size:
            self.pos_embed = parameter(1, embed_dims, pos_embed_size, pos_embed_size)
        self.blocks = nn.ModuleList(PaCaBlock(embed_dims, **block) for block in blocks)
        self.norm = nn.LayerNorm(embed_dims, eps=NORM_EPS)

    def reset_parameters(self) -> None:
        """Initialise the position embedding, the only parameter of the stage itself."""
        if self.pos_embed is not None:
            trunc_normal_(self.pos_embed, std=0.02)

    def forward(
        self, x: Tensor, teacher_map: Tensor | None = None, assignment: Tensor | None = None
    ) -> Tensor:
        """Run the stage.

        Args:
            x: output of the previous stage, (B, H', W', C').
            teacher_map: teacher feature map, added to the output of the blocks, (B, H, W, C).
            assignment: assignment of the teacher, used by every block, (B, M, N).

        Returns:
            Normalised patches, (B, H, W, C).
        """
        if self.downsample is not None:
            x = self.downsample(x)
        if self.pos_embed is not None:
            size = x.shape[1:3]
            pos_embed = F.interpolate(self.pos_embed, size, mode='bilinear', align_corners=True)
            x = x + pos_embed.permute(0, 2, 3, 1)  # (1, C, H, W) -> (1, H, W, C)
        for block in self.blocks:
            if self.with_cp and x.requires_grad:
                x, assignment = checkpoint(block, x, assignment, use_reentrant=False)
            else:
                x, assignment = block(x, assignment)
        return self.norm(x if teacher_map is None else x + teacher_map)


@ROOT_MODELS.register_module()
@MODELS.register_module()
class PaCaViT(BaseModule):
    """PaCa-ViT backbone: attention from patches to a small set of learned clusters.

    Args:
        arch: a name of :data:`mmpaca.models.ARCHS`, or a dict of ``embed_dims``, ``num_heads``,
            ``mlp_ratios`` and ``depths`` (one value per stage) and, for the external clustering
            teacher, ``teacher_depths``. ``num_clusters`` in it is the default of the argument.
        clustering: module that computes the assignment, ``'conv' | 'mlp' | 'linear'``. Ignored
            with a teacher.
        num_clusters: number of clusters M per stage, or one number for all stages; 0 is plain
            self-attention. None means those of ``arch``; if it has none, (100, 100, 100, 0), or
            (100, 100, 100, 100) with a teacher.
        cluster_interval: per stage, or one number for all stages. 0: the first block computes the
            assignment of the whole stage; 1: every block computes its own; k: every k-th block.
        in_channels: channels of the input image.
        stem_stride: stride of the stem (patch size of stage 1 in pixels), 4, 2 or 1.
        out_indices: indices of the output stages, ascending.
        drop_rate: dropout rate after the linear layers.
        attn_drop_rate: dropout rate of the attention weights.
        drop_path_rate: stochastic depth rate of the last block; it rises linearly from 0.
        layer_scale_init_value: initial layer scale of each residual branch; None disables it.
        cluster_pos_embed: learn a position embedding per cluster.
        post_norm: normalise the output of a residual branch instead of its input.
        sub_norm: add a LayerNorm before the last linear layer of each residual branch.
        pos_embed_size: image size in pixels, e.g. 224, for which each stage learns a position
            embedding; it is resized to the actual feature map. None disables it.
        frozen_stages: freeze the stem and the stages up to this index (no gradients, norms in
            eval mode); -1 freezes nothing.
        norm_eval: keep BatchNorm layers (only the teacher has any) in eval mode during training.
        with_cp: use activation checkpointing in the blocks, to trade time for memory.
        recompute: recompute the hidden maps of the MLPs and clustering modules in the backward pass
            instead of saving them, ``'auto' | True | False``. ``'auto'`` does so on CPUs only.
        fast_paths: False runs the blocks as they are written, for debugging: same numbers, slower.
        compile: compile the backbone alone, not the detector, by ``torch.compile``: True for
            dynamic shapes, or a dict of arguments of ``torch.compile``.
        init_cfg: initialisation config of mmengine. ``dict(type='Pretrained', checkpoint=...)``
            accepts the authors' files without conversion.

    Raises:
        ValueError: an argument is invalid; the message names it.

    Example:
        >>> import torch
        >>> from mmpaca.models import PaCaViT
        >>> for out in PaCaViT('tiny').eval()(torch.rand(1, 3, 64, 96)):
        ...     print(tuple(out.shape))
        (1, 96, 16, 24)
        (1, 192, 8, 12)
        (1, 320, 4, 6)
        (1, 384, 2, 3)
    """

    def __init__(
        self,
        arch: str | dict = 'tiny',
        clustering: str = 'conv',
        num_clusters: int | Sequence[int] | None = None,
        cluster_interval: int | Sequence[int] = 0,
        in_channels: int = 3,
        stem_stride: int = 4,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.1,
        layer_scale_init_value: float | None = None,
        cluster_pos_embed: bool = False,
        post_norm: bool = False,
        sub_norm: bool = False,
        pos_embed_size: int | None = None,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        recompute: bool | str = 'auto',
        fast_paths: bool = True,
        compile: bool | dict = False,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(init_cfg)
        arch = check_arch(arch)
        self.embed_dims = tuple(arch['embed_dims'])
        self.depths = tuple(arch['depths'])
        stages = len(self.depths)
        teacher_depths = arch.get('teacher_depths')
        if clustering not in CLUSTERINGS:
            raise ValueError(f'clustering={clustering!r} is unknown, choose one of {CLUSTERINGS}')
        if num_clusters is None:
            default = (100,) * (stages - 1) + (100 if teacher_depths else 0,)
            num_clusters = arch.get('num_clusters') or default
        self.num_clusters = per_stage('num_clusters', num_clusters, stages)
        intervals = per_stage('cluster_interval', cluster_interval, stages)
        self.out_indices = check_indices(out_indices, stages)
        if frozen_stages not in range(-1, stages):
            raise ValueError(f'frozen_stages={frozen_stages!r} is not in -1..{stages - 1}')
        if pos_embed_size is not None and not pos_embed_size > 0:
            raise ValueError(f'pos_embed_size={pos_embed_size!r} must be > 0, or None')
        check_rates(
            drop_rate=drop_rate, attn_drop_rate=attn_drop_rate, drop_path_rate=drop_path_rate
        )
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval
        self.fast = FastPaths(fast_paths, recompute)
        self._logged = False

        self.stem = Stem(in_channels, self.embed_dims[0], stem_stride)
        self.teacher = None
        if teacher_depths:
            self.teacher = ClusteringTeacher(self.embed_dims, teacher_depths, self.num_clusters)

        last = max(sum(self.depths) - 1, 1)
        drop_path_rates = (drop_path_rate * k / last for k in range(last + 1))
        common = dict(
            drop_rate=drop_rate,
            layer_scale_init_value=layer_scale_init_value,
            post_norm=post_norm,
            sub_norm=sub_norm,
            fast=self.fast,
        )
        self.stages = nn.ModuleList()
        for i, depth in enumerate(self.depths):
            # The first block computes an assignment; with interval 0 it is the only one.
            step = intervals[i] or depth
            blocks = [
                dict(
                    common,
                    mlp_ratio=arch['mlp_ratios'][i],
                    attention=dict(
                        num_heads=arch['num_heads'][i],
                        num_clusters=self.num_clusters[i],
                        clustering=None if teacher_depths or j % step else clustering,
                        cluster_pos_embed=cluster_pos_embed,
                        attn_drop_rate=attn_drop_rate,
                    ),
                    drop_path_rate=next(drop_path_rates),
                )
                for j in range(depth)
            ]
            self.stages.append(
                PaCaStage(
                    self.embed_dims[i - 1] if i else None,
                    self.embed_dims[i],
                    blocks,
                    pos_embed_size and -(-pos_embed_size // (stem_stride * 2**i)),
                    with_cp,
                )
            )
        self.apply(init_module)
        self.apply(match_gradient_strides)
        self._freeze_stages()
        if compile:
            # In place, so that names of parameters do not change.
            self.compile(**(compile if isinstance(compile, dict) else any_size()))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Compute the feature maps of ``out_indices``.

        Args:
            x: images, (B, in_channels, H, W).

        Returns:
            One map per output stage i, (B, C_i, H_i, W_i) in channels-last memory format, where
            H_0 = ceil(H / stem_stride) and H_i = ceil(H_{i-1} / 2).
        """
        if self.training and not (self._logged or is_compiling()):
            self._logged = True
            print_log(f'PaCaViT on {x.device.type}, {self.fast.describe(x.device)}', 'current')
        x = self.stem(x)
        maps = assignments = [None] * len(self.stages)
        if self.teacher is not None:
            maps, assignments = self.teacher(x)
        outs = []
        for i in range(max(self.out_indices) + 1):
            x = self.stages[i](x, maps[i], assignments[i])
            if i in self.out_indices:
                outs.append(x.permute(0, 3, 1, 2))  # (B, H, W, C) -> (B, C, H, W), a view
        return tuple(outs)

    def train(self, mode: bool = True) -> 'PaCaViT':
        """Set the mode, keeping frozen stages (and BatchNorm if ``norm_eval``) in eval mode."""
        super().train(mode)
        self._freeze_stages()
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Get the depth of a parameter for layer-wise learning rate decay, as in mmpretrain.

        Args:
            param_name: full name of the parameter.
            prefix: prefix of this backbone in the model, e.g. ``'backbone.'``.

        Returns:
            The layer id (0 is the stem, ``sum(depths) + 1`` is everything after the backbone) and
            the number of layers. A transition belongs to the first block after it; the norm of a
            stage and the teacher's part of a stage belong to its last block.
        """
        num_layers = sum(self.depths) + 2
        if not param_name.startswith(prefix):
            return num_layers - 1, num_layers
        owner, *path = param_name[len(prefix) :].split('.')
        if owner == 'stem':
            return 0, num_layers
        stage, part = (path[0], path[1]) if owner == 'stages' else (path[1], 'norm')
        first = sum(self.depths[: int(stage)]) + 1
        if part == 'blocks':
            return first + int(path[2]), num_layers
        if part == 'norm':
            return first + self.depths[int(stage)] - 1, num_layers
        return first, num_layers

    def _freeze_stages(self) -> None:
        """Freeze the stem, and the stages and the teacher's stages up to ``frozen_stages``."""
        if self.frozen_stages < 0:
            return
        frozen = [self.stem, *self.stages[: self.frozen_stages + 1]]
        if self.teacher is not None:
            frozen += self.teacher.stages[: self.frozen_stages + 1]
        for module in frozen:
            module.eval().requires_grad_(False)

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: Any) -> None:
        """Load weights, also under the authors' names or with other cluster counts.

        mmengine's loaders are never strict: other mismatches must be an error here.
        """
        fit_state_dict(self, state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)
