"""The authors' checkpoints (github.com/iVMCL/PaCaViT) under the names of PaCaViT and OpenMMLab."""

from collections.abc import Mapping

from torch import Tensor

from mmpaca.models.pretrained import find_prefix, rename_official

TASKS = ('backbone', 'classifier', 'detector')


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
        >>> from mmpaca.checkpoint import convert_official
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
