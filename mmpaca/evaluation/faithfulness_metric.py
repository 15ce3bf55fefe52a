"""Faithfulness of relevance maps, measured beside AP in validation and testing."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.registry import METRICS as ROOT_METRICS
from mmengine.structures import BaseDataElement, InstanceData
from torch import nn
from torchvision.ops import box_iou

from mmpaca.datasets.images import read_image
from mmpaca.explain.attribution import METHODS, apply
from mmpaca.explain.perturbation import deletion_insertion
from mmpaca.explain.scene import Detection, read_detections
from mmpaca.explain.subject import Subject
from mmpaca.registry import METRICS

from .cluster_alignment_metric import decode_region
from .faithfulness import curve_auc, energy_pointing_game, gini, pointing_game

_MEASURES = ('deletion', 'insertion', 'pointing', 'energy', 'sparsity')


@ROOT_METRICS.register_module()
@METRICS.register_module()
class FaithfulnessMetric(BaseMetric):
    """Deletion, insertion, pointing games and sparsity of a detector's relevance maps.

    Means over detections, of which ``detections`` is the number. ``deletion`` and ``insertion`` are
    the areas under the curves of :func:`~mmpaca.explain.perturbation.deletion_insertion`, and the
    others those of :mod:`mmpaca.evaluation.faithfulness`. ``pointing`` and ``energy`` need
    annotations and leave out false positives. ``mmpaca explain-eval`` compares methods, with
    intervals; this metric follows one of them through a training.

    A detection takes 2 * (steps + 1) predictions of its image. Needs
    :class:`~mmpaca.engine.ClusterRecordHook`, one of our default hooks.

    Args:
        ann_file: COCO annotations; None for ``instances`` of the data samples (add it to
            ``meta_keys`` of PackDetInputs), or none.
        method: a key of ``mmpaca.explain.METHODS``.
        interval: measure every so many images of a process.
        per_image: at most as many detections of an image, those of the highest scores.
        score_thr: lowest score of a detection.
        steps: steps of the curves.
        **kwargs: arguments of mmengine's BaseMetric.

    Raises:
        ValueError: the method is unknown, or a number is less than 1.
    """

    default_prefix = 'explain'

    def __init__(
        self,
        ann_file: str | None = None,
        method: str = 'paca',
        interval: int = 1,
        per_image: int = 3,
        score_thr: float = 0.3,
        steps: int = 16,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if method not in METHODS:
            raise ValueError(f'method={method!r} is unknown, choose one of {", ".join(METHODS)}')
        for name, value in (('interval', interval), ('per_image', per_image), ('steps', steps)):
            if value < 1:
                raise ValueError(f'{name}={value} must be 1 or more')
        self.method, self.interval, self.per_image = method, interval, per_image
        self.score_thr, self.steps = score_thr, steps
        self.model: nn.Module | None = None  # set by ClusterRecordHook
        self._coco = None
        if ann_file is not None:
            from mmdet.datasets.api_wrappers import COCO

            self._coco = COCO(ann_file)

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Measure the maps of a batch's detections.

        Args:
            data_batch: unused.
            data_samples: data samples of the batch, as dicts with their meta information.

        Raises:
            RuntimeError: the metric was not given the model.
            ValueError: the model is no detector of boxes.
        """
        if self.model is None:
            raise RuntimeError(
                'FaithfulnessMetric needs the model: add '
                "default_hooks=dict(cluster_record=dict(type='mmpaca.ClusterRecordHook'))"
            )
        for sample in data_samples:
            due = len(self.results) % self.interval == 0
            self.results.append(self._measure(self.model, sample) if due else [])

    def compute_metrics(self, results: list[list[dict[str, float]]]) -> dict[str, float]:
        """Compute the means over all detections; nan without any."""
        rows = [row for rows in results for row in rows]
        metrics = {'detections': float(len(rows))}
        for name in _MEASURES:
            values = [row[name] for row in rows if not np.isnan(row.get(name, np.nan))]
            metrics[name] = float(np.mean(values)) if values else float('nan')
        return metrics

    def _measure(self, model: nn.Module, sample: dict) -> list[dict[str, float]]:
        if 'bboxes' not in sample.get('pred_instances', ()):
            raise ValueError('FaithfulnessMetric measures detectors; the predictions have no boxes')
        found = sample['pred_instances']
        kept = {key: found[key] for key in ('bboxes', 'scores', 'labels')}
        prediction = BaseDataElement(pred_instances=InstanceData(**kept))
        shape = sample['ori_shape'][:2]
        classes = self.dataset_meta['classes'] if self.dataset_meta else None
        detections = read_detections(prediction, shape, classes, self.score_thr)[: self.per_image]
        if not detections:  # a broken image has none
            return []
        subject = Subject(model, np.ascontiguousarray(read_image(sample['img_path'])[..., ::-1]))
        maps = apply(self.method, subject, detections)
        regions = [annotated_region(d, self._instances(sample), shape) for d in detections]
        return measure(subject, maps, detections, regions, self.steps)

    def _instances(self, sample: dict) -> list[dict]:
        """Annotations as mmdet's datasets list them."""
        if self._coco is None:
            return sample.get('instances', [])
        ids = self._coco.get_cat_ids(cat_names=self.dataset_meta['classes'])
        annotations = self._coco.load_anns(self._coco.get_ann_ids(img_ids=[sample['img_id']]))
        instances = []
        for one in annotations:
            if one['category_id'] in ids:
                left, top, width, height = one['bbox']
                instances.append(
                    dict(
                        bbox=[left, top, left + width, top + height],
                        bbox_label=ids.index(one['category_id']),
                        ignore_flag=bool(one.get('iscrowd')),
                        mask=one.get('segmentation'),
                    )
                )
        return instances


def measure(
    subject: Subject,
    maps: np.ndarray,
    detections: Sequence[Detection],
    regions: Sequence[np.ndarray | None],
    steps: int,
) -> list[dict[str, float]]:
    """Measure the maps of an image's detections.

    Args:
        subject: the image and its model.
        maps: (D, height, width) >= 0.
        detections: D detections.
        regions: (height, width) bool of the annotation of each, or None.
        steps: of the deletion and insertion curves.

    Returns:
        For each detection ``deletion``, ``insertion``, ``sparsity`` and, where there is a region,
        ``pointing`` and ``energy``.
    """
    rows = []
    for heat, detection, region in zip(maps, detections, regions, strict=True):
        deletion, insertion = map(curve_auc, deletion_insertion(subject, heat, detection, steps))
        row = dict(deletion=deletion, insertion=insertion, sparsity=gini(heat))
        if region is not None:
            row['pointing'] = pointing_game(heat, region)
            row['energy'] = energy_pointing_game(heat, region)
        rows.append(row)
    return rows


def annotated_region(
    detection: Detection, instances: Sequence[dict], shape: tuple[int, int]
) -> np.ndarray | None:
    """Mask, or else box, of the annotation of a detection's class that fits it best.

    Returns:
        (height, width) bool; None if no IoU of boxes is 0.5 or more (a false positive).
    """
    own = [
        one
        for one in instances
        if one['bbox_label'] == detection.label and not one.get('ignore_flag')
    ]
    if not own:
        return None
    boxes = torch.tensor([one['bbox'] for one in own], dtype=torch.float64)
    ious = box_iou(boxes, boxes.new_tensor([detection.box]))[:, 0]
    found = own[int(ious.argmax())]
    if ious.max() < 0.5:
        return None
    region = decode_region(found, 'mask', shape)
    return region if region.any() else None
