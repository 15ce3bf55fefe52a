"""The authors' checkpoints (github.com/iVMCL/PaCaViT) under the names of PaCaViT and OpenMMLab.

The table of names stands next to the model because it must change with it.
"""

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

TASKS = ('backbone', 'classifier', 'detector')
# The authors' names -> ours. Their stages count from 1, ours from 0: {i} is the first number less
# one; {0} is it as it stands, for a transition from stage 1 is part of our stages.1.
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
# Names that only the authors' backbone, and only ours, have.
_OFFICIAL_MARK = re.compile(r'(|.*\.)stage\d+\.\d+\.(?:norm[12]_before|attn|mlp)\.')
_OWN_MARK = re.compile(r'(|.*\.)stages\.\d+\.blocks\.\d+\.(?:attn\.[qkv]|mlp\.dwconv)\.')


def rename_official(name: str) -> str | None:
    """Our name of a backbone tensor of the authors' release, None where it is none of theirs."""
    for pattern, ours in _OFFICIAL:
        match = re.fullmatch(pattern, name)
        if match:
            first = match[1]
            return ours.format(*match.groups(), i=int(first) - 1 if first.isdigit() else None)
    return None


def find_prefix(names: Iterable[str], official: bool) -> str | None:
    """Under which prefix (``''``, ``'backbone.'``, ...) a PaCa-ViT backbone stands.

    Args:
        names: of all tensors of a file.
        official: look for the authors' names instead of ours.

    Returns:
        The prefix, None where there is no such backbone.

    Raises:
        ValueError: there are several.
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
    """The weights of a PaCa-ViT backbone under our names, whatever prefix and names they have.

    Args:
        state_dict: of a backbone, classifier or detector; the authors' or ours.

    Returns:
        ``{name in PaCaViT: tensor}``. A tensor of the backbone whose name is not known keeps its
        name; what is not under the backbone's prefix is left out. Where no backbone is
        recognised, everything as it is.
    """
    for official in (True, False):
        prefix = find_prefix(state_dict, official)
        if prefix is not None:
            weights = {k[len(prefix) :]: v for k, v in state_dict.items() if k.startswith(prefix)}
            if official:
                # The classifier's head is a sibling of the backbone's tensors in these files.
                weights = {
                    rename_official(k) or k: v
                    for k, v in weights.items()
                    if not k.startswith('head.')
                }
            return weights
    return dict(state_dict)


def convert_official(state_dict: Mapping[str, Tensor], task: str = 'backbone') -> dict[str, Tensor]:
    """Rename the tensors of an official checkpoint; values and shapes stay as they are.

    Args:
        state_dict: the weights, ``{name: tensor}``, of a classifier or a detector, under any
            prefix (``backbone.``, ``module.``, ...).
        task: ``'backbone'`` for PaCaViT's own names; ``'classifier'`` for mmpretrain's
            (``backbone.*`` and ``head.fc.*``); ``'detector'`` for mmdet's (``backbone.*``, neck
            and heads untouched).

    Returns:
        A new dict. What the task has no place for (a classifier's head in a detector, say) is
        left out.

    Raises:
        ValueError: the task is unknown, nothing is recognised, a tensor of the backbone is not
            known, or a classifier is asked of a file without a head.

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
            f"no tensor has a name of the authors' PaCa-ViT, e.g. stage1.0.attn.q.weight; the "
            f'{len(state_dict)} names given begin with {list(state_dict)[:3]}'
        )
    # In a detector or a wrapped model, what is not backbone stands beside PARENT.backbone.
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
            f"{len(unknown)} tensors of the backbone are none of the authors' PaCa-ViT: "
            f'{", ".join(unknown[:20])}'
        )
    if task == 'backbone':
        return backbone
    backbone = {'backbone.' + name: value for name, value in backbone.items()}
    if task == 'detector':
        return {**backbone, **others}
    if not head:
        raise ValueError("the file has no classifier's head (head.weight, head.bias)")
    return {**backbone, **head}
