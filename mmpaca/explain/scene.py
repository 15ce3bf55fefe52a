"""One image with its detections and its clusters: what pictures and page are made from."""

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
    """Something that the model found.

    Attributes:
        name: of its class.
        score: in 0..1.
        box: left, top, right, bottom in pixels of the image.
        mask: (height, width) bool, its region; the box where the model has no masks.
    """

    name: str
    score: float
    box: tuple[float, float, float, float]
    mask: np.ndarray


@dataclass
class Scene:
    """One image of a recorded batch, on the CPU.

    Attributes:
        image: (height, width, 3) uint8 RGB, as loaded.
        geometry: how the network's maps lie on it.
        blocks: records of this image alone (B = 1), one or more per stage.
        left_out: stages without clusters.
        detections: by falling score. A classifier's is the whole image, for its prediction is
            the mean of all patches.
    """

    image: np.ndarray
    geometry: Geometry
    blocks: list[BlockRecord]
    left_out: tuple[int, ...]
    detections: list[Detection]

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
        """Gather what belongs to one image.

        Args:
            image: (height, width, 3) uint8 RGB.
            sample: what the model predicted for it, mmdet's or mmpretrain's.
            recording: of the batch that it was in.
            index: its position in that batch.
            classes: names of the classes; None numbers them.
            score_thr: detections below are left out.
            all_blocks: every block of a stage instead of the last.

        Raises:
            ValueError: the image is not the one that went into the network.
        """
        geometry = Geometry.from_meta(sample.metainfo)
        if image.shape[:2] != geometry.image_shape:
            raise ValueError(
                f'the image has {image.shape[:2]} pixels, the data sample {geometry.image_shape}'
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
            detections=_detections(sample, geometry.image_shape, classes, score_thr),
        )

    def only_stages(self, stages: Sequence[int] | None) -> 'Scene':
        """The same with some stages only, counted from 1; None for all.

        Raises:
            ValueError: a stage has no clusters or does not exist.
        """
        known = sorted({block.stage + 1 for block in self.blocks})
        unknown = sorted(set(stages or ()) - set(known))
        if unknown:
            raise ValueError(f'stages {unknown} have no clusters; those that have: {known}')
        return replace(self, blocks=[b for b in self.blocks if b.stage + 1 in (stages or known)])

    def relevance(self, block: BlockRecord, detection: Detection) -> np.ndarray:
        """What the patches of a detection looked at, over all heads: (H, W), sums to one.

        Raises:
            ValueError: the attention of this block was not recorded.
        """
        queries = torch.from_numpy(self.coverage(block, detection))
        return block.relevance(queries[None, None])[0, 0].numpy()

    def coverage(self, block: BlockRecord, detection: Detection) -> np.ndarray:
        """The share of each patch that a detection covers, (H, W).

        Where no pixel of the resized image shows it, the patch at the middle of its box counts.
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


def _detections(
    sample: BaseDataElement, shape: tuple[int, int], classes: Sequence[str] | None, score_thr: float
) -> list[Detection]:
    """Read a data sample of mmdet or mmpretrain."""
    if 'pred_label' in sample:
        label = int(sample.pred_label)
        whole = (0.0, 0.0, float(shape[1]), float(shape[0]))
        score = float(sample.pred_score[label]) if 'pred_score' in sample else 1.0
        return [Detection(_name(classes, label), score, whole, np.ones(shape, bool))]
    found = sample.pred_instances.cpu()
    found = found[found.scores > score_thr]
    found = found[found.scores.argsort(descending=True)]
    detections = []
    for i in range(len(found)):
        left, top, right, bottom = found.bboxes[i].tolist()
        box = (left, top, right, bottom)
        mask = found.masks[i] if 'masks' in found else _box_mask(box, shape)
        mask = mask.numpy() if isinstance(mask, Tensor) else np.asarray(mask)
        name = _name(classes, int(found.labels[i]))
        detections.append(Detection(name, float(found.scores[i]), box, mask.astype(bool)))
    return detections


def _name(classes: Sequence[str] | None, label: int) -> str:
    return f'class {label}' if classes is None else str(classes[label])


def _box_mask(box: tuple[float, float, float, float], shape: tuple[int, int]) -> np.ndarray:
    left, top, right, bottom = (max(0, round(v)) for v in box)
    mask = np.zeros(shape, bool)
    mask[top:bottom, left:right] = True
    return mask
