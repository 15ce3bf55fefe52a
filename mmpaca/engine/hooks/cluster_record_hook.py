"""Give ClusterAlignmentMetric access to the recorded clusters."""

from contextlib import ExitStack

from mmengine.evaluator import Evaluator
from mmengine.hooks import Hook
from mmengine.registry import HOOKS as ROOT_HOOKS
from mmengine.runner import Runner
from torch import nn

from mmpaca.engine.wrappers import unwrapped
from mmpaca.evaluation.cluster_alignment_metric import ClusterAlignmentMetric
from mmpaca.explain.recorder import record
from mmpaca.registry import HOOKS


@ROOT_HOOKS.register_module()
@HOOKS.register_module()
class ClusterRecordHook(Hook):
    """Record clusters while an evaluator has a :class:`~mmpaca.evaluation.ClusterAlignmentMetric`.

    A metric only receives data samples, so this hook passes the recording to it. Without such a
    metric it does nothing.

    Args:
        enabled: Set False to switch the hook off.
    """

    def __init__(self, enabled: bool = True) -> None:
        self.enabled = enabled
        self._open = ExitStack()

    def before_val(self, runner: Runner) -> None:
        """Start recording if a metric needs it."""
        self._start(runner.model, runner.val_evaluator)

    def before_test(self, runner: Runner) -> None:
        """Start recording if a metric needs it."""
        self._start(runner.model, runner.test_evaluator)

    def after_val(self, runner: Runner) -> None:
        """Stop recording."""
        self._open.close()

    def after_test(self, runner: Runner) -> None:
        """Stop recording."""
        self._open.close()

    def _start(self, model: nn.Module, evaluator: Evaluator) -> None:
        metrics = [m for m in evaluator.metrics if isinstance(m, ClusterAlignmentMetric)]
        if metrics and self.enabled:
            model = unwrapped(model, allow_tta=False)
            recording = self._open.enter_context(record(model, attention='none'))
            for metric in metrics:
                metric.recording = recording
