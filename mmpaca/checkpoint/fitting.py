"""Compare a checkpoint with a model."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from torch import Size, Tensor, nn

from mmpaca.models import PaCaViT
from mmpaca.models.fitting import CheckpointError, describe_misfit

from .loading import weights_of
from .schema import nonfinite_share

_LEARNT = ('weight', 'bias', 'running_mean', 'running_var')


def check_fit(model: nn.Module, checkpoint: Mapping[str, Any]) -> None:
    """Refuse a checkpoint that does not match the neck and heads of a model.

    The backbone validates its own weights (it accepts other numbers of clusters and the names of
    the official release).

    Args:
        model: A detector or classifier with a PaCaViT, without wrappers.
        checkpoint: Its state dict, or a training checkpoint.

    Raises:
        CheckpointError: Lists missing, unexpected and wrong-shaped tensors, or those with NaN.
    """
    given = {_plain(name): value for name, value in weights_of(checkpoint).items()}
    misfit = describe_misfit(
        _beside_backbone(model, model.state_dict()),
        _beside_backbone(model, given),
    )
    if misfit:
        raise CheckpointError(
            f'The checkpoint does not match {type(model).__name__} (neck/head keys): {misfit} To '
            'load the weights of a backbone alone, use model.backbone.init_cfg; to load what '
            'matches and leave the rest random, set '
            'default_hooks=dict(strict_load=dict(strict=False)).'
        )
    bad = [
        name
        for name, value in given.items()
        if isinstance(value, Tensor) and _is_spoilt(value, name.endswith(_LEARNT))
    ]
    if bad:
        raise CheckpointError(
            f'The checkpoint has NaN or infinite values in {len(bad)} tensors: '
            f'{", ".join(bad[:5])}{", ..." if len(bad) > 5 else ""}. Use an older one.'
        )


def _is_spoilt(value: Tensor, is_learnt: bool) -> bool:
    """True for NaN, and for infinite values but those of e.g. masks."""
    if not nonfinite_share(value):
        return False
    return is_learnt or bool(value.float().isnan().any())


def keep_class_layers(
    model: nn.Module,
    checkpoint: Mapping[str, Any],
    shapes_with_one_class_more: Callable[[], Mapping[str, Size]],
) -> list[str]:
    """Let a model keep its own layers if their shape depends on the number of classes.

    In the checkpoint, the tensors concerned are replaced by the model's, in place. A tensor of
    another shape is replaced only if its shape is the one that the model would have with some
    other number of classes, the same number for all tensors. Everything else is left for
    :func:`check_fit`.

    Args:
        model: A detector or classifier, without wrappers.
        checkpoint: Its state dict, or a training checkpoint.
        shapes_with_one_class_more: Returns the shapes of the model's tensors with one class more;
            called only if shapes differ.

    Returns:
        Names of the replaced tensors.
    """
    expected = _beside_backbone(model, model.state_dict())
    weights = weights_of(checkpoint)
    wrong = {
        name: (key, weights[key].shape)
        for key in weights
        if (name := _plain(key)) in expected and weights[key].shape != expected[name].shape
    }
    if not wrong:
        return []
    larger = shapes_with_one_class_more()
    differences = {
        name: _class_difference(expected[name].shape, larger.get(name), given)
        for name, (_, given) in wrong.items()
    }
    found = set(differences.values()) - {None}
    if len(found) != 1:
        return []
    renewed = [name for name, difference in differences.items() if difference is not None]
    for name in renewed:
        weights[wrong[name][0]] = expected[name].clone()  # type: ignore[index]
    return renewed


def _class_difference(ours: Size, larger: Size | None, given: Size) -> int | None:
    """Number of additional classes that give the shape ``given``, if one gives ``larger``."""
    if larger is None or not len(ours) == len(larger) == len(given):
        return None
    found = set()
    for own, one_more, theirs in zip(ours, larger, given, strict=True):
        per_class = one_more - own
        if per_class == 0:
            if theirs != own:
                return None
        elif (theirs - own) % per_class:
            return None
        else:
            found.add((theirs - own) // per_class)
    return found.pop() if len(found) == 1 else None


def _plain(name: str) -> str:
    """A name without the prefix of DistributedDataParallel, as in Runner.load_checkpoint."""
    return re.sub(r'^module\.', '', name)


def _beside_backbone(model: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights that are checked: not the backbone's, and no step counters of BatchNorm."""
    backbones = tuple(
        f'{name}.' if name else ''
        for name, module in model.named_modules()
        if isinstance(module, PaCaViT)
    )
    return {
        name: value
        for name, value in weights.items()
        if not name.startswith(backbones) and not name.endswith('num_batches_tracked')
    }
