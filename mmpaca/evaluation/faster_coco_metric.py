"""COCO's box and mask AP in a fraction of pycocotools' time, by faster-coco-eval.

Only what takes long is replaced: the matching of predictions with annotations and the
accumulation over images. Files are read by mmdet's COCO class, and the figures of the summary are
defined by pycocotools' own code. So every number is pycocotools', whatever ``proposal_nums``;
faster-coco-eval in place of all of pycocotools takes AP over another number of boxes per image,
and would decode the masks of training, too.
"""

from collections.abc import Sequence
from typing import Any
from unittest.mock import patch

from mmdet.evaluation.metrics import CocoMetric, coco_metric
from mmengine.registry import METRICS as ROOT_METRICS
from pycocotools.cocoeval import COCOeval, Params

from mmpaca.compat import require
from mmpaca.registry import METRICS

# What mmdet and COCOeval's users set; the rest follows from the kind of IoU.
_SETTINGS = (
    'imgIds', 'catIds', 'useCats', 'maxDets', 'iouThrs', 'recThrs', 'areaRng', 'areaRngLbl'
)  # fmt: skip


class FasterCOCOeval(COCOeval):
    """pycocotools' COCOeval whose ``evaluate`` and ``accumulate`` are faster-coco-eval's."""

    def evaluate(self) -> None:
        """Match predictions with annotations and sum up: ``eval``, and sorted ``params``.

        Raises:
            TypeError: an image's id is no number.
        """
        names = [i for i in self.params.imgIds if isinstance(i, str)]
        if names:
            raise TypeError(
                f'FasterCocoMetric needs numbers as ids of images, and one is {names[0]!r}; '
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
        """Nothing is left to do after `evaluate`.

        Raises:
            ValueError: other parameters than those of ``evaluate`` are wanted.
        """
        if p is not None and p is not self.params:
            raise ValueError('FasterCOCOeval accumulates with the parameters of evaluate() only')


@ROOT_METRICS.register_module()
@METRICS.register_module()
class FasterCocoMetric(CocoMetric):
    """mmdet's CocoMetric, with its arguments, numbers and log lines, but faster.

    Args:
        **kwargs: of CocoMetric. ``use_mp_eval`` is another way to save time, and is refused.

    Raises:
        ImportError: faster-coco-eval is not installed.
        ValueError: with ``use_mp_eval``.
    """

    def __init__(self, *args: Any, use_mp_eval: bool = False, **kwargs: Any) -> None:
        if use_mp_eval:
            raise ValueError("use_mp_eval=True is for type='CocoMetric'; FasterCocoMetric has none")
        require('faster_coco_eval')  # not at the end of the first epoch
        super().__init__(*args, **kwargs)

    def compute_metrics(self, results: Sequence[tuple[dict, dict]]) -> dict[str, float]:
        """As CocoMetric's, which takes its evaluator from its module."""
        with patch.object(coco_metric, 'COCOeval', FasterCOCOeval):
            return super().compute_metrics(results)
