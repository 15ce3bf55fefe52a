"""COCO box and mask AP by faster-coco-eval: pycocotools' numbers in a fraction of the time.

Only the slow steps are replaced: matching predictions with annotations, and accumulation over
images. Files are read by mmdet's COCO class, and pycocotools' own code computes the summary. So
every number equals pycocotools', whatever ``proposal_nums``. (Replacing all of pycocotools by
faster-coco-eval would compute AP over another number of boxes per image.)
"""

import types
from typing import Any

from mmdet.evaluation.metrics import CocoMetric
from mmengine.registry import METRICS as ROOT_METRICS
from pycocotools.cocoeval import COCOeval, Params

from mmpaca.compat import require
from mmpaca.registry import METRICS

# Parameters that mmdet and users of COCOeval set; the others follow from the kind of IoU.
_SETTINGS = (
    'imgIds', 'catIds', 'useCats', 'maxDets', 'iouThrs', 'recThrs', 'areaRng', 'areaRngLbl'
)  # fmt: skip


class FasterCOCOeval(COCOeval):
    """pycocotools' COCOeval with ``evaluate`` and ``accumulate`` of faster-coco-eval."""

    def evaluate(self) -> None:
        """Match predictions with annotations and accumulate: sets ``eval``, sorts ``params``.

        Raises:
            TypeError: an image id is not a number.
        """
        names = [i for i in self.params.imgIds if isinstance(i, str)]
        if names:
            raise TypeError(
                f'FasterCocoMetric needs numbers as image ids, got {names[0]!r}; '
                "use type='CocoMetric'"
            )
        faster = require('faster_coco_eval').COCOeval_faster(
            self.cocoGt, self.cocoDt, self.params.iouType, print_function=print
        )
        for name in _SETTINGS:
            setattr(faster.params, name, getattr(self.params, name))
        faster.evaluate()
        for name in _SETTINGS:
            setattr(self.params, name, getattr(faster.params, name))
        self.eval = faster.eval

    def accumulate(self, p: Params | None = None) -> None:
        """Do nothing: `evaluate` has accumulated.

        Raises:
            ValueError: ``p`` differs from the parameters of ``evaluate``.
        """
        if p is not None and p is not self.params:
            raise ValueError('FasterCOCOeval accumulates with the parameters of evaluate() only')


@ROOT_METRICS.register_module()
@METRICS.register_module()
class FasterCocoMetric(CocoMetric):
    """Faster CocoMetric with the same arguments, numbers and log lines.

    Args:
        **kwargs: arguments of CocoMetric. ``use_mp_eval``, another way to save time, is refused.

    Raises:
        ImportError: faster-coco-eval is not installed.
        ValueError: ``use_mp_eval`` is set.
    """

    def __init__(self, *args: Any, use_mp_eval: bool = False, **kwargs: Any) -> None:
        if use_mp_eval:
            raise ValueError("use_mp_eval=True is for type='CocoMetric'; FasterCocoMetric has none")
        require('faster_coco_eval')  # fail now, not at the end of the first epoch
        super().__init__(*args, **kwargs)

    # CocoMetric takes its evaluator from its module's globals: the same code, with other globals.
    compute_metrics = types.FunctionType(
        CocoMetric.compute_metrics.__code__,
        {**CocoMetric.compute_metrics.__globals__, 'COCOeval': FasterCOCOeval},
        closure=CocoMetric.compute_metrics.__closure__,
    )
