"""Detection in large images slice by slice, with sahi's slices and merging."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from mmpaca.compat import require

from .inference import MAX_MASK_BYTES, Predictor

OVERLAP = 0.2
_MATCH = 0.5  # intersection over the smaller box, from which on two detections are one object


class SlicedPredictor:
    """A :class:`~mmpaca.apis.inference.Predictor` that looks at one slice of an image at a time.

    Slices overlap, so that an object smaller than the overlap is whole in one of them. Detections
    of a class that reach into an overlap and cover each other by half or more (of the smaller box)
    become one, with the highest score and the union of boxes and masks: greedy non-maximum merging
    of sahi (Akyon et al., 2022). All other detections are those of the slices.

    Args:
        predictor: a detector of boxes or instances.
        size: side of the square slices in pixels; larger than the objects.
        overlap: share of a slice that the next one repeats, at least 0 and below 1.

    Raises:
        ImportError: sahi is not installed.
        ValueError: the model is no detector of boxes or instances, or a number is out of range.
    """

    def __init__(self, predictor: Predictor, size: int, overlap: float = OVERLAP) -> None:
        require('sahi')
        if predictor.task != 'detection' or not hasattr(predictor.model, 'test_cfg'):
            raise ValueError('--slice is for detectors, and the config is of a classifier')
        if size < 1 or not 0 <= overlap < 1:
            raise ValueError(f'{size=} must be at least 1 and {overlap=} in [0, 1)')
        self._predictor = predictor
        self.task, self.classes = predictor.task, predictor.classes
        self.to_dict, self.draw = predictor.to_dict, predictor.draw
        self._size, self._overlap = size, overlap

    def check_size(self, height: int, width: int) -> None:
        """Accept any size: :meth:`predict` counts the masks that there are."""

    def predict(self, images: Sequence[np.ndarray]) -> list[DetDataSample]:
        """Predict images of any size.

        Args:
            images: each (height, width, 3) uint8 BGR.

        Returns:
            A data sample for each image.

        Raises:
            ValueError: the masks, each of the image's size, would fill the memory.
        """
        return [self._predict(image) for image in images]

    def _predict(self, image: np.ndarray) -> DetDataSample:
        from sahi.slicing import get_slice_bboxes

        height, width = shape = image.shape[:2]
        slices = get_slice_bboxes(
            height, width, self._size, self._size, False, self._overlap, self._overlap
        )
        parts = []
        found = 0
        for left, top, right, bottom in slices:
            (sample,) = self._predictor.predict([image[top:bottom, left:right]])
            if 'pred_instances' not in sample:
                raise ValueError(
                    '--slice is for boxes and instances, not for panoptic segmentation'
                )
            found += len(sample.pred_instances)
            if 'masks' in sample.pred_instances and found * height * width > MAX_MASK_BYTES // 2:
                raise ValueError(  # merging makes copies
                    f'{found} masks of {width}x{height} pixels take more than '
                    f'{MAX_MASK_BYTES / 2**31:.0f} GiB: cut the image into parts, or use a detector '
                    'of boxes'
                )
            parts.append(_shifted(sample.pred_instances, left, top, shape))
        all_parts = InstanceData.cat(parts)
        in_overlap = reach_into_overlap(_numpy(all_parts.bboxes), np.array(slices))
        kept = [
            all_parts[torch.from_numpy(~in_overlap)],
            _merged(all_parts[torch.from_numpy(in_overlap)]),
        ]
        whole = InstanceData.cat(kept)
        whole = whole[whole.scores.argsort(descending=True, stable=True)]
        return DetDataSample(metainfo=dict(ori_shape=shape), pred_instances=whole)


def _numpy(values: Any) -> np.ndarray:
    return np.asarray(values.cpu() if isinstance(values, torch.Tensor) else values)


def _shifted(found: InstanceData, left: int, top: int, shape: tuple[int, int]) -> InstanceData:
    """Move detections of a slice to their place in the image, on the CPU."""
    moved = InstanceData(
        bboxes=found.bboxes.cpu() + torch.tensor([left, top, left, top]),
        labels=found.labels.cpu(),
        scores=found.scores.cpu(),
    )
    if 'masks' in found:
        part = torch.as_tensor(found.masks).cpu()
        masks = torch.zeros((len(part), *shape), dtype=torch.bool)
        masks[:, top : top + part.shape[1], left : left + part.shape[2]] = part
        moved.masks = masks
    return moved


def reach_into_overlap(boxes: np.ndarray, slices: np.ndarray) -> np.ndarray:
    """Find the boxes that touch pixels of more than one slice that are shared.

    Args:
        boxes: (N, 4) left, top, right, bottom.
        slices: (S, 4), as well.

    Returns:
        (N,) bool.
    """
    shared = []
    for i, one in enumerate(slices):
        corners = np.concatenate(
            [np.maximum(one[:2], slices[i + 1 :, :2]), np.minimum(one[2:], slices[i + 1 :, 2:])], 1
        )
        shared += [c for c in corners if (c[:2] < c[2:]).all()]
    inside = np.zeros(len(boxes), bool)
    for left, top, right, bottom in shared:
        inside |= (boxes[:, 0] < right) & (boxes[:, 2] > left) & (boxes[:, 1] < bottom) & (boxes[:, 3] > top)  # fmt: skip
    return inside


def _merged(found: InstanceData) -> InstanceData:
    """Merge the detections of one object."""
    from sahi.postprocess.combine import batched_greedy_nmm

    if len(found) == 0:
        return found
    scores, labels = found.scores[:, None], found.labels[:, None]
    table = np.concatenate([_numpy(v) for v in (found.bboxes, scores, labels)], 1)
    groups = batched_greedy_nmm(table, 'IOS', _MATCH)
    for kept, others in groups.items():
        members = [kept, *others]
        boxes = found.bboxes[members]
        found.bboxes[kept] = torch.cat([boxes[:, :2].amin(0), boxes[:, 2:].amax(0)])
        if 'masks' in found:
            found.masks[kept] = found.masks[members].any(0)
    return found[list(groups)]
