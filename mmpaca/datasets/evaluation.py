"""Broken images in validation and testing, for any dataset of mmengine's kind."""

import io
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from mmcv.transforms import LoadImageFromFile
from mmengine import fileio
from mmengine.dataset import BaseDataset
from mmengine.structures import BaseDataElement
from PIL import Image

from .coco import LoadVerifiedImageFromFile, TolerantCocoDataset, log_bad_data
from .coco_faults import max_annotations, segmentation_fault
from .images import MAX_PIXELS, is_outside
from .seg_maps import IGNORED, SegFileError

BROKEN = 'broken_image'  # in the metainfo of a sample that stands for a broken image
PLACEHOLDER_SIZE = (256, 256)  # of what stands for a broken image whose size is not annotated
_PREDICTIONS = {'pred_instances', 'pred_sem_seg', 'pred_panoptic_seg', 'pred_score'}


class EvaluationLoader:
    """Replaces ``prepare_data`` of a dataset in evaluation: a broken image does not raise.

    The sample of a broken image has its annotations and a black image, is marked by
    :data:`BROKEN` and logged once. :func:`drop_predictions` removes what a model predicts for it.
    mmcv's ``LoadImageFromFile`` in the pipeline is replaced by
    :class:`~mmpaca.datasets.coco.LoadVerifiedImageFromFile`, so that images are read, and EXIF
    orientations treated, as in training. Annotations that crash pycocotools are dropped from the
    samples.

    Args:
        dataset: see :meth:`fits`.
        max_bad_share: share of broken images above which a :class:`RuntimeError` is raised.
    """

    def __init__(self, dataset: BaseDataset, max_bad_share: float) -> None:
        dataset.full_init()
        self.dataset = dataset
        self.max_bad_share = max_bad_share
        self.is_bad = torch.zeros(len(dataset), dtype=torch.bool).share_memory_()
        self.steps = [verified(step) for step in dataset.pipeline.transforms]
        self.with_mask = any(getattr(step, 'with_mask', False) for step in self.steps)

    @staticmethod
    def fits(dataset: Any) -> bool:
        """Return True for a dataset that loads image files in mmengine's way."""
        return (
            isinstance(dataset, BaseDataset)
            and type(dataset).prepare_data
            in (BaseDataset.prepare_data, TolerantCocoDataset.prepare_data)
            and any(isinstance(step, LoadImageFromFile) for step in dataset.pipeline.transforms)
        )

    def __call__(self, idx: int) -> dict:
        """Load a sample.

        Raises:
            RuntimeError: too many images are broken, or one cannot even be replaced.
            SegFileError: a label map cannot be used.
        """
        info = self._info(idx)
        path = info['img_path']
        try:
            self._check_path(path)
            return self._run(self.steps, info)
        except SegFileError:
            raise
        except Exception as error:  # arbitrary bytes make decoders raise anything
            self._note(idx, path, error)
            try:
                return self._placeholder(idx)
            except Exception as second:
                raise RuntimeError(
                    f'{path}: {error}; the pipeline fails without the image, too: {second}'
                ) from error

    def bad_files(self) -> list[str]:
        """Return the images that no worker of this rank could load so far."""
        return [self.dataset.get_data_info(int(i))['img_path'] for i in self.is_bad.nonzero()]

    def _info(self, idx: int) -> dict:
        """What is known of a sample, without annotations that cannot be used."""
        info = self.dataset.get_data_info(idx)
        size = info.get('height'), info.get('width')
        if not info.get('instances') or None in size:
            return info
        kept = info['instances']
        if self.with_mask:
            kept = [one for one in kept if not segmentation_fault(one.get('mask'), *size)]
        # Of too many, the first ones: the metric has its own ground truth.
        info['instances'] = kept[: max_annotations(size[0] * size[1], self.with_mask)]
        return info

    def _check_path(self, path: str) -> None:
        prefix = getattr(self.dataset, 'data_prefix', {})
        folder = prefix.get('img', prefix.get('img_path')) if isinstance(prefix, dict) else None
        if folder and '://' not in path and is_outside(os.path.relpath(path, folder)):
            raise ValueError(f'is outside of the image folder {folder}')

    def _placeholder(self, idx: int) -> dict:
        info = self._info(idx)
        height, width = _annotated_size(info)
        shrink = max(1.0, (height * width / MAX_PIXELS) ** 0.5)
        height, width = max(1, int(height / shrink)), max(1, int(width / shrink))
        data = self._run([_Black(height, width), *self._after_loading()], info)
        samples = data['data_samples']
        for sample in samples if isinstance(samples, list) else [samples]:
            sample.set_metainfo({BROKEN: True})
        return data

    def _after_loading(self) -> list[Callable]:
        places = [i for i, step in enumerate(self.steps) if isinstance(step, LoadImageFromFile)]
        return self.steps[places[0] + 1 :]

    @staticmethod
    def _run(steps: list[Callable], data: Any) -> dict:
        for step in steps:
            data = step(data)
            if data is None:
                raise ValueError(f'{type(step).__name__} rejects it')
        return data

    def _note(self, idx: int, path: str, error: Exception) -> None:
        if not self.is_bad[idx]:
            self.is_bad[idx] = True
            log_bad_data(f'bad image {path}: {error}; it counts as an image without predictions')
        bad = int(self.is_bad.sum())
        if bad > self.max_bad_share * len(self.dataset):
            raise RuntimeError(
                f'{bad} of {len(self.dataset)} images of the evaluation are broken, more than '
                f'max_bad_share={self.max_bad_share} of BadDataSummaryHook; the last one is '
                f'{path}: {error}'
            ) from error


def _annotated_size(info: dict) -> tuple[int, int]:
    if 'height' not in info and 'seg_map_path' in info:  # a label map is as large as its image
        with Image.open(io.BytesIO(fileio.get(info['seg_map_path']))) as labels:
            return labels.height, labels.width
    return info.get('height') or PLACEHOLDER_SIZE[0], info.get('width') or PLACEHOLDER_SIZE[1]


class _Black:
    """A black image in place of one that cannot be loaded."""

    def __init__(self, height: int, width: int) -> None:
        self.shape = height, width

    def __call__(self, results: dict) -> dict:
        image = np.zeros((*self.shape, 3), np.uint8)
        return {**results, 'img': image, 'img_shape': self.shape, 'ori_shape': self.shape}


def verified(step: Any) -> Callable:
    """Return mmcv's loader with the checks of ours; any other step as it is."""
    if type(step) is not LoadImageFromFile or step.file_client_args is not None:
        return step
    return LoadVerifiedImageFromFile(
        to_float32=step.to_float32,
        color_type=step.color_type,
        imdecode_backend=step.imdecode_backend,
        backend_args=step.backend_args,
    )


def drop_predictions(model: torch.nn.Module, args: tuple, outputs: Any) -> None:
    """Forward hook: remove the predictions for samples that stand for broken images.

    A detector's instances are dropped; a classifier's scores are best for all other classes; the pixels
    of a segmentor, semantic or panoptic, have no class (255).

    Raises:
        RuntimeError: predictions are of another kind.
    """
    if not isinstance(outputs, list | tuple):
        return
    for sample in outputs:
        if not isinstance(sample, BaseDataElement) or not sample.get(BROKEN, False):
            continue
        if not _PREDICTIONS & set(sample.keys()):
            raise RuntimeError(
                f'{sample.get("img_path", "an image")} is broken, and predictions of a '
                f'{type(model).__name__} cannot be left out: remove the image from the dataset'
            )
        _drop(sample)


def _drop(sample: BaseDataElement) -> None:
    if len(sample.get('pred_instances', ())):
        sample.pred_instances = sample.pred_instances[:0]
    for maps in (sample.get('pred_sem_seg'), sample.get('pred_panoptic_seg')):
        for name, pixels in maps.items() if maps is not None else ():
            maps.set_field(torch.full_like(pixels, IGNORED), name)
    if 'pred_score' in sample:
        scores = torch.ones_like(sample.pred_score)
        if 'gt_label' in sample:
            scores[sample.gt_label.long()] = 0
        sample.pred_score = scores
        sample.pred_label = scores.argmax(dim=-1, keepdim=True)
