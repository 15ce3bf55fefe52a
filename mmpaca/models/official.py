"""Rename the tensors of the official checkpoints (github.com/iVMCL/PaCaViT).

This module is next to the model because the two must change together.
"""

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

TASKS = ('backbone', 'classifier', 'detector')
# What all official weights were trained with: RGB with ImageNet's mean and standard deviation.
PREPROCESSING = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True)
# Official name -> name in PaCaViT. Official stages count from 1, PaCaViT's from 0: {i} is the first
# number minus one, {0} the number itself (the transition after official stage 1 is in stages.1).
# fmt: off
_OFFICIAL = [
    (r'patch_embed\.proj\.(\d+)\.(.+)', 'stem.convs.{0}.{1}'),
    (r'patch_embed\.norm\.(.+)', 'stem.norm.{0}'),
    (r'stage(\d+)\.(\d+)\.norm([12])_before\.(.+)', 'stages.{i}.blocks.{1}.norm{2}.{3}'),
    (r'stage(\d+)\.(\d+)\.attn\.clustering\.(.+)', 'stages.{i}.blocks.{1}.attn.{2}'),
    (r'stage(\d+)\.(\d+)\.attn\.(.+)', 'stages.{i}.blocks.{1}.attn.{2}'),
    (r'stage(\d+)\.(\d+)\.mlp\.dwconv\.(.+)', 'stages.{i}.blocks.{1}.mlp.{2}'),
    (r'stage(\d+)\.(\d+)\.mlp\.(.+)', 'stages.{i}.blocks.{1}.mlp.{2}'),
    (r'norm(\d+)\.(.+)', 'stages.{i}.norm.{1}'),
    (r'transition(\d+)\.proj\.(.+)', 'stages.{0}.downsample.conv.{1}'),
    (r'transition(\d+)\.norm\.(.+)', 'stages.{0}.downsample.norm.{1}'),
    (r'paca_teacher\.block(\d+)\.(\d+)\.0\.fn\.0\.(.+)', 'teacher.stages.{i}.blocks.{1}.depthwise.{2}'),
    (r'paca_teacher\.block(\d+)\.(\d+)\.0\.fn\.2\.(.+)', 'teacher.stages.{i}.blocks.{1}.norm1.{2}'),
    (r'paca_teacher\.block(\d+)\.(\d+)\.1\.(.+)', 'teacher.stages.{i}.blocks.{1}.pointwise.{2}'),
    (r'paca_teacher\.block(\d+)\.(\d+)\.3\.(.+)', 'teacher.stages.{i}.blocks.{1}.norm2.{2}'),
    (r'paca_teacher\.transition(\d+)\.0\.(.+)', 'teacher.stages.{0}.transition.{1}'),
    (r'paca_teacher\.transition(\d+)\.2\.(.+)', 'teacher.stages.{0}.transition.norm.{1}'),
    (r'paca_teacher\.lateral(\d+)\.0\.(.+)', 'teacher.stages.{i}.lateral.conv.{1}'),
    (r'paca_teacher\.lateral(\d+)\.2\.(.+)', 'teacher.stages.{i}.lateral.norm.{1}'),
    (r'paca_teacher\.fpn(\d+)\.0\.fn\.0\.(.+)', 'teacher.stages.{i}.smooth.depthwise.{1}'),
    (r'paca_teacher\.fpn(\d+)\.0\.fn\.2\.(.+)', 'teacher.stages.{i}.smooth.norm1.{1}'),
    (r'paca_teacher\.fpn(\d+)\.1\.(.+)', 'teacher.stages.{i}.smooth.pointwise.{1}'),
    (r'paca_teacher\.fpn(\d+)\.3\.(.+)', 'teacher.stages.{i}.smooth.norm2.{1}'),
    (r'paca_teacher\.to_clusters(\d+)\.(.+)', 'teacher.stages.{i}.to_clusters.{1}'),
]
# fmt: on
# Names that occur only in an official backbone, or only in PaCaViT.
_OFFICIAL_MARK = re.compile(r'(|.*\.)stage\d+\.\d+\.(?:norm[12]_before|attn|mlp)\.')
_OWN_MARK = re.compile(r'(|.*\.)stages\.\d+\.blocks\.\d+\.(?:attn\.[qkv]|mlp\.dwconv)\.')


def rename_official(name: str) -> str | None:
    """PaCaViT's name of an official backbone tensor; None for an unknown name."""
    for pattern, ours in _OFFICIAL:
        match = re.fullmatch(pattern, name)
        if match:
            first = match[1]
            return ours.format(*match.groups(), i=int(first) - 1 if first.isdigit() else None)
    return None


def find_prefix(names: Iterable[str], official: bool) -> str | None:
    """Find the prefix (``''``, ``'backbone.'``, ...) of a PaCa-ViT backbone.

    Args:
        names: Names of all tensors of a file.
        official: Search for official names instead of PaCaViT's.

    Returns:
        The prefix, or None if there is no backbone.

    Raises:
        ValueError: There are several backbones.
    """
    mark = _OFFICIAL_MARK if official else _OWN_MARK
    prefixes = {match[1] for match in map(mark.match, names) if match}
    if len(prefixes) > 1:
        raise ValueError(
            f'several PaCa-ViT backbones in one file, under {sorted(prefixes)}: keep one, e.g. '
            "with init_cfg=dict(type='Pretrained', prefix=...)"
        )
    return prefixes.pop() if prefixes else None


def backbone_weights(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Extract the weights of a PaCa-ViT backbone under PaCaViT's names.

    Args:
        state_dict: State dict of a backbone, classifier or detector, with official names or
            PaCaViT's, under any prefix.

    Returns:
        ``{name in PaCaViT: tensor}``. Backbone tensors with unknown names keep their names; keys
        without the backbone's prefix are dropped. If no backbone is found, a copy of
        ``state_dict``.
    """
    for official in (True, False):
        prefix = find_prefix(state_dict, official)
        if prefix is not None:
            weights = {k[len(prefix) :]: v for k, v in state_dict.items() if k.startswith(prefix)}
            if official:
                # In these files the classifier's head has the same prefix as the backbone.
                weights = {
                    rename_official(k) or k: v
                    for k, v in weights.items()
                    if not k.startswith('head.')
                }
            return weights
    return dict(state_dict)


def convert_official(state_dict: Mapping[str, Tensor], task: str = 'backbone') -> dict[str, Tensor]:
    """Rename the tensors of an official checkpoint; values and shapes are unchanged.

    Args:
        state_dict: Weights of an official classifier or detector, ``{name: tensor}``, under any
            prefix (``backbone.``, ``module.``, ...).
        task: Target names. ``'backbone'``: PaCaViT's; ``'classifier'``: mmpretrain's
            (``backbone.*`` and ``head.fc.*``); ``'detector'``: mmdet's (``backbone.*``, neck and
            heads unchanged).

    Returns:
        A new dict without the tensors that the task does not need, e.g. a classifier's head for
        ``'detector'``.

    Raises:
        ValueError: Unknown task, no official backbone, an unknown backbone tensor, or no
            classification head for ``'classifier'``.

    Example:
        >>> import torch
        >>> from mmpaca.models.official import convert_official
        >>> official = {'stage1.0.attn.q.weight': torch.ones(96, 96), 'head.bias': torch.ones(10)}
        >>> list(convert_official(official, 'classifier'))
        ['backbone.stages.0.blocks.0.attn.q.weight', 'head.fc.bias']
    """
    if task not in TASKS:
        raise ValueError(f'task={task!r} is unknown, choose one of {TASKS}')
    prefix = find_prefix(state_dict, official=True)
    if prefix is None:
        raise ValueError(
            'no tensor has a name of the official PaCa-ViT, e.g. stage1.0.attn.q.weight; the '
            f'first of {len(state_dict)} names are {list(state_dict)[:3]}'
        )
    # In a detector or a wrapped model, neck and heads are PARENT.*, beside PARENT.backbone.
    parent = prefix.removesuffix('backbone.')

    backbone, head, others, unknown = {}, {}, {}, []
    for name, value in state_dict.items():
        local = name.removeprefix(prefix) if name.startswith(prefix) else None
        if local is None:
            others[name.removeprefix(parent)] = value
        elif local.startswith('head.'):
            head['head.fc.' + local.removeprefix('head.')] = value
        elif (renamed := rename_official(local)) is not None:
            backbone[renamed] = value
        else:
            unknown.append(name)
    if unknown:
        raise ValueError(
            f'{len(unknown)} unknown backbone tensors, not in the official PaCa-ViT: '
            f'{", ".join(unknown[:20])}'
        )
    if task == 'backbone':
        return backbone
    backbone = {'backbone.' + name: value for name, value in backbone.items()}
    if task == 'detector':
        return {**backbone, **others}
    if not head:
        raise ValueError('the file has no classification head (head.weight, head.bias)')
    return {**backbone, **head}
