"""Weights that do not fit are an error, not a line in the log."""

import re

from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmpaca.checkpoint import weights_of
from mmpaca.models import PaCaViT
from mmpaca.models.pretrained import describe_misfit
from mmpaca.registry import HOOKS

from .wrappers import unwrapped


@HOOKS.register_module()
class StrictLoadHook(Hook):
    """Refuse a checkpoint of which only a part, or nothing, fits the model.

    mmengine loads what fits and logs the rest, on rank 0 only; a test of the wrong file then
    reports the accuracy of random weights. This looks at neck and heads; the backbone looks
    after itself (other cluster counts and the authors' names are fine there).

    Args:
        strict: False lets everything pass, as stock mmengine does: for fine-tuning from a
            detector with other classes, say.
    """

    def __init__(self, strict: bool = True) -> None:
        self.strict = strict

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Compare names and shapes, before anything is copied into the model, on every rank.

        Raises:
            RuntimeError: lists what is missing, unexpected and wrong-shaped.
        """
        if not self.strict:
            return
        model = unwrapped(runner.model)  # as mmengine's loader
        own = [
            name + '.' if name else ''
            for name, m in model.named_modules()
            if isinstance(m, PaCaViT)
        ]
        expected = model.state_dict()
        # As Runner.load_checkpoint does, without the prefix of DistributedDataParallel.
        given = {re.sub(r'^module\.', '', k): v for k, v in weights_of(checkpoint).items()}
        expected, given = (
            {
                k: v
                for k, v in weights.items()
                if not k.startswith(tuple(own)) and not k.endswith('num_batches_tracked')
            }
            for weights in (expected, given)
        )
        misfit = describe_misfit(expected, given)
        if misfit:
            raise RuntimeError(
                f'The checkpoint does not fit {type(model).__name__} (beside its backbone): '
                f'{misfit} For the weights of a backbone alone use model.backbone.init_cfg; to '
                'load what fits and leave the rest random, set strict=False of StrictLoadHook '
                'in custom_hooks.'
            )
