"""Refuse checkpoints that do not match the model."""

import copy
import functools
from collections.abc import Sequence

import torch
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.registry import MODELS
from mmengine.runner import Runner

from mmpaca.checkpoint.fitting import check_fit, keep_class_layers
from mmpaca.engine.wrappers import unwrapped
from mmpaca.registry import HOOKS

# Config keys for a number of classes; those of one tuple are increased together.
_CLASS_KEYS = (('num_classes', 'num_things_classes'), ('num_stuff_classes',))


@HOOKS.register_module()
class StrictLoadHook(Hook):
    """Refuse a checkpoint that does not match the neck and heads of the model.

    mmengine loads what matches and logs the rest, on rank 0 only; testing the wrong file then
    reports the accuracy of random weights. The backbone validates its own weights (it accepts
    other numbers of clusters and the names of the official release).

    Fine-tuning (training with ``load_from``, without ``resume``) may change the number of
    classes. The layers whose shape depends on it keep their initialisation, and a warning names
    them. To find them, the model is built once more with one class more: a shape in the
    checkpoint is accepted if it follows from some number of classes, the same for all layers.

    Args:
        strict: Set False to load what matches and ignore the rest, like stock mmengine.
        enabled: Set False to switch the hook off.
    """

    priority = 'VERY_HIGH'  # before EMAHook copies the weights

    def __init__(self, strict: bool = True, enabled: bool = True) -> None:
        self.strict = strict
        self.enabled = enabled

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Compare names and shapes, on every rank, before weights are copied into the model.

        Raises:
            RuntimeError: Lists missing, unexpected and wrong-shaped tensors.
        """
        if not (self.strict and self.enabled):
            return
        model = unwrapped(runner.model)
        if _is_finetuning(runner):
            renewed: list[str] = []
            for keys in _CLASS_KEYS:
                renewed += keep_class_layers(
                    model, checkpoint, functools.partial(_shapes, runner, keys)
                )
            if renewed:
                runner.logger.warning(
                    'The checkpoint was trained with another number of classes. Re-initialised: '
                    f'{", ".join(renewed)}. All other weights were loaded.'
                )
        check_fit(model, checkpoint)


def _is_finetuning(runner: Runner) -> bool:
    """True while training starts from ``load_from``; False for testing and resuming."""
    training = isinstance(getattr(runner, 'optim_wrapper', None), OptimWrapper | OptimWrapperDict)
    return training and not runner._resume and 'model' in runner.cfg


def _shapes(runner: Runner, keys: Sequence[str]) -> dict[str, torch.Size]:
    """Shapes of the weights with one class more."""
    config = copy.deepcopy(runner.cfg.model)
    if not _add_class(config, keys):
        return {}
    with torch.device('meta'):
        model = MODELS.build(config)
    return {name: value.shape for name, value in model.state_dict().items()}


def _add_class(node: object, keys: Sequence[str]) -> bool:
    """Increase the numbers of classes anywhere in a config; False if there are none."""
    if isinstance(node, list | tuple):
        return any([_add_class(child, keys) for child in node])
    if not isinstance(node, dict):
        return False
    found = [key for key in keys if isinstance(node.get(key), int) and node[key] > 0]
    node.update({key: node[key] + 1 for key in found})
    return any([*found, *(_add_class(child, keys) for child in node.values())])
