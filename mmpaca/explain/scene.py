"""One image with its detections and clusters: the input of pictures and page."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from mmengine.structures import BaseDataElement
from torch import Tensor

from .geometry import Geometry
from .recorder import BlockRecord, Recording


@dataclass
class Detection:
    """One prediction.

    Attributes:
        name: class name.
        score: confidence in 0..1.
        box: left, top, right, bottom in pixels of the image.
        mask: (height, width) bool region; the box where the model predicts no masks.
        label: class index.
        has_mask: True where the model predicted the mask.
        curves: scores while the most relevant pixels are removed first, and while they are shown
            first, at equal steps from none to all; None if they were not computed.
    """

    name: str
    score: float
    box: tuple[float, float, float, float]
    mask: np.ndarray
    label: int = 0
    has_mask: bool = True
    curves: tuple[list[float], list[float]] | None = None


@dataclass
class Scene:
    """One image of a recorded batch, on the CPU.

    Attributes:
        image: (height, width, 3) uint8 RGB, as loaded.
        geometry: position of the network's maps on the image.
        blocks: records of this image alone (B = 1), one or more per stage.
        left_out: skipped stages: those without clusters.
        detections: sorted by descending score. A classifier's only detection is the entire image,
            because it averages all patches. Those of a segmentor are the regions of its classes.
        classes: class names; None numbers them.
        is_segmented: True for the prediction of a segmentor.
        attribution: relevance of each pixel to the first K detections through the entire network,
            (K, height, width) >= 0; None if it was not computed.
    """

    image: np.ndarray
    geometry: Geometry
    blocks: list[BlockRecord]
    left_out: tuple[int, ...]
    detections: list[Detection]
    classes: Sequence[str] | None = None
    is_segmented: bool = False
    attribution: np.ndarray | None = None

    @classmethod
    def from_sample(
        cls,
        image: np.ndarray,
        sample: BaseDataElement,
        recording: Recording,
        index: int,
        classes: Sequence[str] | None,
        score_thr: float = 0.3,
        all_blocks: bool = False,
    ) -> 'Scene':
        """Collect the records and predictions of one image of a batch.

        Args:
            image: (height, width, 3) uint8 RGB.
            sample: the model's prediction, a data sample of mmdet, mmpretrain or mmseg.
            recording: recorded batch that contains the image.
            index: position of the image in the batch.
            classes: class names; None numbers them.
            score_thr: lowest score of a detection.
            all_blocks: take every block of a stage instead of the last one.

        Raises:
            ValueError: the image does not have the size that the data sample states.
        """
        geometry = Geometry.from_meta(sample.metainfo)
        if image.shape[:2] != geometry.image_shape:
            raise ValueError(
                f'image size {image.shape[:2]} does not match the data sample: {geometry.image_shape}'
            )
        blocks = recording.blocks.values() if all_blocks else recording.last_blocks()
        only = slice(index, index + 1)
        return cls(
            image=image,
            geometry=geometry,
            blocks=[
                replace(
                    block,
                    assignment=block.assignment[only].cpu(),
                    attention=block.recorded_attention()[only].cpu(),
                )
                for block in blocks
            ],
            left_out=recording.left_out,
            detections=read_detections(sample, geometry.image_shape, classes, score_thr),
            classes=classes,
            is_segmented='pred_sem_seg' in sample,
        )

    def only_stages(self, stages: Sequence[int] | None) -> 'Scene':
        """Return a copy with some of the stages, counted from 1, and the head; None for all.

        Raises:
            ValueError: a stage has no clusters or does not exist.
        """
        known = sorted({block.stage + 1 for block in self.blocks if not block.is_head})
        unknown = sorted(set(stages or ()) - set(known))
        if unknown:
            raise ValueError(f'stages {unknown} have no clusters; those that have: {known}')
        kept = [b for b in self.blocks if b.is_head or b.stage + 1 in (stages or known)]
        return replace(self, blocks=kept)

    def cluster_names(self, block: BlockRecord) -> list[str]:
        """Name the clusters of a block: classes in the head, else numbers from 1."""
        numbers = range(block.assignment.shape[1])
        if block.is_head:
            return [_name(self.classes, number) for number in numbers]
        return [f'cluster {number + 1}' for number in numbers]

    def relevance(self, block: BlockRecord, detection: Detection) -> np.ndarray:
        """Relevance of every patch to a detection's patches, mean of all heads: (H, W), sum 1.

        Raises:
            ValueError: the attention of this block was not recorded.
        """
        queries = torch.from_numpy(self.coverage(block, detection))
        return block.relevance(queries[None, None])[0, 0].numpy()

    def coverage(self, block: BlockRecord, detection: Detection) -> np.ndarray:
        """Share of each patch that a detection covers, (H, W) in 0..1.

        A detection too small for any pixel of the resized image gets the patch at its box's centre.
        """
        rows, columns = block.assignment.shape[-2:]
        covered = self.geometry.to_map(detection.mask, block.stride, (rows, columns))
        covered = np.nan_to_num(covered)
        if not covered.any():
            cell_left, cell_top, width, height = self.geometry.cell_box(block.stride)
            left, top, right, bottom = detection.box
            row = int(((top + bottom) / 2 - cell_top) / height)
            column = int(((left + right) / 2 - cell_left) / width)
            covered[np.clip(row, 0, rows - 1), np.clip(column, 0, columns - 1)] = 1
        return covered


def read_detections(
    sample: BaseDataElement, shape: tuple[int, int], classes: Sequence[str] | None, score_thr: float
) -> list[Detection]:
    """Read the predictions in a data sample of mmdet, mmpretrain or mmseg.

    Args:
        sample: prediction for one image.
        shape: (height, width) of the image.
        classes: class names; None numbers them.
        score_thr: lowest score of a detection.

    Returns:
        Detections by descending score; a classifier's is one with the entire image as its region,
        a segmentor's are the regions of all classes with the mean of their probability.
    """
    if 'pred_sem_seg' in sample:
        return _read_regions(sample, classes)
    if 'pred_label' in sample:
        label = int(sample.pred_label)
        whole = (0.0, 0.0, float(shape[1]), float(shape[0]))
        score = float(sample.pred_score[label]) if 'pred_score' in sample else 1.0
        return [Detection(_name(classes, label), score, whole, np.ones(shape, bool), label, False)]
    found = sample.pred_instances.cpu()
    found = found[found.scores > score_thr]
    found = found[found.scores.argsort(descending=True)]
    detections = []
    for i in range(len(found)):
        left, top, right, bottom = found.bboxes[i].tolist()
        box = (left, top, right, bottom)
        mask = found.masks[i] if 'masks' in found else box_mask(box, shape)
        mask = mask.numpy() if isinstance(mask, Tensor) else np.asarray(mask)
        label = int(found.labels[i])
        detections.append(
            Detection(
                _name(classes, label),
                float(found.scores[i]),
                box,
                mask.astype(bool),
                label,
                'masks' in found,
            )
        )
    return detections


def _read_regions(sample: BaseDataElement, classes: Sequence[str] | None) -> list[Detection]:
    labels = sample.pred_sem_seg.data[0].cpu().numpy()
    probabilities = sample.seg_logits.data.softmax(0).amax(0).cpu().numpy()
    regions = []
    for label in np.unique(labels).tolist():
        mask = labels == label
        rows, columns = mask.any(1).nonzero()[0], mask.any(0).nonzero()[0]
        box = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
        score = float(probabilities[mask].mean())
        left, top, right, bottom = map(float, box)
        regions.append(
            Detection(_name(classes, label), score, (left, top, right, bottom), mask, label)
        )
    return sorted(regions, key=lambda region: -region.score)


def _name(classes: Sequence[str] | None, label: int) -> str:
    return f'class {label}' if classes is None else str(classes[label])


def box_mask(box: tuple[float, float, float, float], shape: tuple[int, int]) -> np.ndarray:
    """The pixels of a box (left, top, right, bottom): (height, width) bool."""
    left, top, right, bottom = (max(0, round(v)) for v in box)
    mask = np.zeros(shape, bool)
    mask[top:bottom, left:right] = True
    return mask
