"""Weights that do not fit are an error, not a line in the log."""

from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmpaca.checkpoint.fitting import check_fit
from mmpaca.engine.wrappers import unwrapped
from mmpaca.registry import HOOKS


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
        if self.strict:
            check_fit(unwrapped(runner.model), checkpoint)  # as mmengine's loader
