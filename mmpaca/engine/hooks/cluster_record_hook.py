"""Give metrics what no data sample has: the recorded clusters, the model."""

from contextlib import ExitStack

from mmengine.evaluator import Evaluator
from mmengine.hooks import Hook
from mmengine.registry import HOOKS as ROOT_HOOKS
from mmengine.runner import Runner

from mmpaca.engine.wrappers import unwrapped
from mmpaca.evaluation import ClusterAlignmentMetric, FaithfulnessMetric
from mmpaca.explain.recorder import record
from mmpaca.registry import HOOKS


@ROOT_HOOKS.register_module()
@HOOKS.register_module()
class ClusterRecordHook(Hook):
    """Record clusters while an evaluator has a :class:`~mmpaca.evaluation.ClusterAlignmentMetric`.

    A metric only receives data samples, so this hook passes the recording to it, and the model to a
    :class:`~mmpaca.evaluation.FaithfulnessMetric`. Without such a metric it does nothing.

    Args:
        enabled: Set False to switch the hook off.
    """

    def __init__(self, enabled: bool = True) -> None:
        self.enabled = enabled
        self._open = ExitStack()

    def before_val(self, runner: Runner) -> None:
        """Start recording if a metric needs it."""
        self._start(runner, runner.val_evaluator)

    def before_test(self, runner: Runner) -> None:
        """Start recording if a metric needs it."""
        self._start(runner, runner.test_evaluator)

    def after_val(self, runner: Runner) -> None:
        """Stop recording."""
        self._open.close()

    def after_test(self, runner: Runner) -> None:
        """Stop recording."""
        self._open.close()

    def _start(self, runner: Runner, evaluator: Evaluator) -> None:
        aligned = [m for m in evaluator.metrics if isinstance(m, ClusterAlignmentMetric)]
        faithful = [m for m in evaluator.metrics if isinstance(m, FaithfulnessMetric)]
        if not self.enabled or not aligned + faithful:
            return
        model = unwrapped(runner.model, allow_tta=False)
        for metric in faithful:
            metric.model = model
        if faithful:
            model.cfg = runner.cfg  # as init_detector does
        # They run the model again, after which a recording is no longer that of the batch.
        evaluator.metrics.sort(key=lambda metric: metric in faithful)
        if aligned:
            recording = self._open.enter_context(record(model, attention='none'))
            for metric in aligned:
                metric.recording = recording
