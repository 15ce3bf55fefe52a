"""Shows the clusters of a validation or test to the metrics that want them."""

from contextlib import ExitStack

from mmengine.evaluator import Evaluator
from mmengine.hooks import Hook
from mmengine.registry import HOOKS as ROOT_HOOKS
from mmengine.runner import Runner
from torch import nn

from mmpaca.engine.wrappers import bare_model
from mmpaca.evaluation.cluster_alignment_metric import ClusterAlignmentMetric
from mmpaca.explain.recorder import record
from mmpaca.registry import HOOKS


@ROOT_HOOKS.register_module()
@HOOKS.register_module()
class ClusterRecordHook(Hook):
    """Records clusters while an evaluator has a :class:`~mmpaca.evaluation.ClusterAlignmentMetric`.

    A metric sees data samples only, never the model; this hook lends it the recording. Without
    such a metric it does nothing.
    """

    def __init__(self) -> None:
        self._open = ExitStack()

    def before_val(self, runner: Runner) -> None:
        """Start to record where a metric wants it."""
        self._start(runner.model, runner.val_evaluator)

    def before_test(self, runner: Runner) -> None:
        """Start to record where a metric wants it."""
        self._start(runner.model, runner.test_evaluator)

    def after_val(self, runner: Runner) -> None:
        """Stop to record."""
        self._open.close()

    def after_test(self, runner: Runner) -> None:
        """Stop to record."""
        self._open.close()

    def _start(self, model: nn.Module, evaluator: Evaluator) -> None:
        metrics = [m for m in evaluator.metrics if isinstance(m, ClusterAlignmentMetric)]
        if metrics:
            recording = self._open.enter_context(record(bare_model(model), attention='none'))
            for metric in metrics:
                metric.recording = recording
