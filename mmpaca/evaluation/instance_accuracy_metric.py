"""StarDist's accuracy of instance masks: TP / (TP + FP + FN) over all objects."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric
from mmengine.registry import METRICS as ROOT_METRICS
from scipy.optimize import linear_sum_assignment

from mmpaca.registry import METRICS

IOU_THRS = (0.5, 0.6, 0.7, 0.8, 0.9)


@ROOT_METRICS.register_module()
@METRICS.register_module()
class InstanceAccuracyMetric(BaseMetric):
    """Accuracy TP / (TP + FP + FN) at IoU thresholds, of all objects of a dataset together.

    Predictions from ``score_thr`` on are assigned to annotations of their image and class, one to one,
    so that as many pairs as possible reach the IoU threshold and, among these assignments, the sum
    of IoUs is largest. A pair is a true positive; other predictions are false positives, other
    annotations false negatives. This is ``matching_dataset(by_image=False)`` of StarDist (Schmidt et
    al., 2018; Weigert et al., 2020), except that masks may overlap, and that predictions that lie
    at least by half in an ignored region (``iscrowd``) do not count.

    Metrics are named ``accuracy_50`` for the IoU threshold 0.5; with several score thresholds,
    ``accuracy_50_score_30`` for the score threshold 0.3.

    Args:
        ann_file: COCO annotation file with masks; the one of the dataset.
        iou_thrs: IoU thresholds, each in (0, 1].
        score_thr: lowest score of a prediction that counts; a sequence to compare several. Choose
            it on other images than those that are reported.
        **kwargs: arguments of BaseMetric.

    Raises:
        ValueError: a threshold is out of range.
    """

    default_prefix = 'instance'

    def __init__(
        self,
        ann_file: str,
        iou_thrs: Sequence[float] = IOU_THRS,
        score_thr: float | Sequence[float] = 0.5,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        from mmdet.datasets.api_wrappers import COCO

        scores = [score_thr] if isinstance(score_thr, int | float) else list(score_thr)
        for name, values in (('iou_thrs', iou_thrs), ('score_thr', scores)):
            wrong = [v for v in values if not 0 <= v <= 1 or name == 'iou_thrs' and v == 0]
            if wrong or not values:
                raise ValueError(f'{name}={values} is invalid: give numbers from 0 to 1')
        self.iou_thrs = tuple(iou_thrs)
        self.score_thrs = tuple(scores)
        self._coco_api = COCO(ann_file)  # ConfigCheckHook compares it with the dataset

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Count the true positives, predictions and annotations of each image."""
        for sample in data_samples:
            self.results.append(self._count(sample))

    def _count(self, sample: dict) -> np.ndarray:
        """Return TP, FP and FN of an image: (score thresholds, IoU thresholds, 3)."""
        found = sample['pred_instances']
        if 'masks' not in found:
            raise ValueError('InstanceAccuracyMetric needs a model that predicts masks')
        scores = np.asarray(found['scores'].cpu())
        labels = np.asarray(found['labels'].cpu())
        annotations = self._annotations(sample['img_id'])
        ious, covered = _overlaps(
            found['masks'], [one['segmentation'] for one in annotations], sample['ori_shape']
        )
        crowd = np.array([one['iscrowd'] for one in annotations], bool)
        classes = np.array([one['label'] for one in annotations], int)
        same = labels[:, None] == classes[None]
        ignored = (same & crowd & (covered >= 0.5)).any(1)
        ious = np.where(same, ious, 0)[:, ~crowd]
        counts = np.zeros((len(self.score_thrs), len(self.iou_thrs), 3), int)
        for i, score_thr in enumerate(self.score_thrs):
            chosen = scores >= score_thr
            for j, iou_thr in enumerate(self.iou_thrs):
                matched = match(ious[chosen], iou_thr)
                counts[i, j] = (
                    matched.sum(),
                    (~matched & ~ignored[chosen]).sum(),
                    (~crowd).sum() - matched.sum(),
                )
        return counts

    def _annotations(self, image_id: int) -> list[dict]:
        """Return the annotations of the dataset's classes, with their labels."""
        cat_ids = self._coco_api.get_cat_ids(cat_names=self.dataset_meta['classes'])
        found = self._coco_api.load_anns(self._coco_api.get_ann_ids(img_ids=[image_id]))
        return [
            dict(
                segmentation=one['segmentation'],
                iscrowd=bool(one.get('iscrowd')),
                label=cat_ids.index(one['category_id']),
            )
            for one in found
            if one['category_id'] in cat_ids
        ]

    def compute_metrics(self, results: list[np.ndarray]) -> dict[str, float]:
        """Compute the accuracies of all images together; nan if there are no objects at all."""
        total = np.sum(results, axis=0)
        metrics = {}
        for i, score_thr in enumerate(self.score_thrs):
            suffix = f'_score_{_percent(score_thr)}' if len(self.score_thrs) > 1 else ''
            for j, iou_thr in enumerate(self.iou_thrs):
                of = total[i, j].sum()
                accuracy = float(total[i, j, 0] / of) if of else float('nan')
                metrics[f'accuracy_{_percent(iou_thr)}{suffix}'] = accuracy
        return metrics


def _percent(value: float) -> str:
    return f'{100 * value:g}'


def match(ious: np.ndarray, iou_thr: float) -> np.ndarray:
    """Assign predictions to annotations one to one, as StarDist's ``matching`` does.

    Args:
        ious: (P, A) of each prediction with each annotation.
        iou_thr: lowest IoU of a pair.

    Returns:
        (P,) bool, True for predictions with a pair.
    """
    matched = np.zeros(len(ious), bool)
    enough = ious >= iou_thr
    if enough.any():
        # A pair more weighs more than all IoUs together.
        costs = -enough.astype(float) - ious / (2 * min(ious.shape))
        rows, columns = linear_sum_assignment(costs)
        matched[rows] = enough[rows, columns]
    return matched


def _overlaps(
    masks: Any, segmentations: list, shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Compute the IoU of predictions with annotations, and the share of a prediction in each.

    Args:
        masks: (P, height, width) bool, or RLEs.
        segmentations: polygons or RLE of each annotation.
        shape: (height, width) of the image.

    Returns:
        Both (P, A).
    """
    from pycocotools import mask as coco_mask

    if len(masks) == 0 or not segmentations:
        empty = np.zeros((len(masks), len(segmentations)))
        return empty, empty
    if not isinstance(masks, list):
        pixels = np.asarray(masks.cpu() if hasattr(masks, 'cpu') else masks, np.uint8)
        masks = [coco_mask.encode(np.asfortranarray(mask)) for mask in pixels]
    truth = [_rle(segmentation, shape) for segmentation in segmentations]
    ious = np.asarray(coco_mask.iou(masks, truth, [0] * len(truth))).reshape(len(masks), -1)
    covered = np.asarray(coco_mask.iou(masks, truth, [1] * len(truth))).reshape(len(masks), -1)
    return ious, covered


def _rle(segmentation: list | dict, shape: tuple[int, int]) -> dict:
    from pycocotools import mask as coco_mask

    if isinstance(segmentation, list):
        return coco_mask.merge(coco_mask.frPyObjects(segmentation, *shape))
    if isinstance(segmentation['counts'], list):
        return coco_mask.frPyObjects(segmentation, *shape)
    return segmentation
