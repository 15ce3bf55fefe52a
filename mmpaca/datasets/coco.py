"""COCO dataset that skips broken annotations and images."""

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from mmcv.transforms import LoadImageFromFile as MMCVLoadImageFromFile
from mmdet.datasets import CocoDataset as MMDetCocoDataset
from mmdet.datasets.api_wrappers import COCO
from mmengine import fileio
from mmengine.dist import is_main_process
from mmengine.logging import print_log

from mmpaca.registry import DATASETS, TRANSFORMS

from .coco_categories import check_category_order, in_order_of_classes
from .coco_faults import (
    FAULTS,
    REMEDY,
    UNUSABLE,
    Fault,
    count,
    find_faults,
    for_evaluation,
    judge_entries,
    read_annotations,
    without_faults,
)
from .images import MAX_PIXELS, check_file, decode

_LOGGED = 1000  # faults of a file
# In evaluation, faults that leave no image or annotation to which something else could refer.
_FATAL = (
    'image: id missing or duplicate',
    'image: id of another type than the others',
    'image: no file name or size',
    'id missing or duplicate',
)


@TRANSFORMS.register_module()
class LoadVerifiedImageFromFile(MMCVLoadImageFromFile):
    """mmcv's LoadImageFromFile with errors for truncated files and sizes unlike the annotations'.

    Args:
        max_pixels: largest number of pixels to decode.
        **kwargs: arguments of mmcv's, except ``ignore_empty`` and ``file_client_args``.

    Raises:
        ValueError: one of these two is given.
    """

    def __init__(self, max_pixels: int = MAX_PIXELS, **kwargs: Any) -> None:
        if kwargs.pop('ignore_empty', False):
            raise ValueError(
                'ignore_empty=True is not for mmpaca.LoadVerifiedImageFromFile: remove it, '
                'mmpaca.TolerantCocoDataset replaces images that cannot be loaded'
            )
        if kwargs.pop('file_client_args', None) is not None:
            raise ValueError(
                'file_client_args is not for mmpaca.LoadVerifiedImageFromFile: write backend_args instead'
            )
        super().__init__(**kwargs)
        self.max_pixels = max_pixels

    def transform(self, results: dict) -> dict:
        """Read ``img_path``; adds ``img``, ``img_shape`` and ``ori_shape``.

        Raises:
            OSError: the file cannot be read.
            ValueError: see :func:`mmpaca.datasets.images.decode` and
                :func:`~mmpaca.datasets.images.check_file`.
        """
        if '://' not in results['img_path']:
            check_file(results['img_path'])
        content = fileio.get(results['img_path'], backend_args=self.backend_args)
        size = (results['height'], results['width']) if 'height' in results else None
        image = decode(content, size, self.color_type, self.imdecode_backend, self.max_pixels)
        if self.to_float32:
            image = image.astype(np.float32)
        return {**results, 'img': image, 'img_shape': image.shape[:2], 'ori_shape': image.shape[:2]}


@DATASETS.register_module()
class TolerantCocoDataset(MMDetCocoDataset):
    """mmdet's CocoDataset that skips broken annotations and images in training.

    Annotations that break mmdet are skipped when the file is read; an image that cannot be loaded
    is replaced by another one, as mmdet replaces images without instances. Each is logged once by
    name, and :class:`mmpaca.engine.BadDataSummaryHook` logs a summary. In validation and testing
    no image is replaced: with that hook a broken one counts as an image without predictions,
    without it it is an error that names it. Of the annotations only those are left out that crash
    pycocotools.

    Labels follow the names in ``metainfo.classes``, whatever the order of the file's categories.
    In validation and testing that order must be the same, because mmdet's CocoMetric numbers
    labels by it.

    Args:
        max_bad_share: share of broken samples above which training stops.
        **kwargs: arguments of mmdet's CocoDataset.

    Raises:
        ValueError: ``max_bad_share`` is not in 0..1; a class is not among the categories, or they
            have duplicates; in training, the file is not a COCO annotation file or has no whole
            annotation; in testing, the categories are in another order than the classes, or an entry
            has no id of its own.
    """

    def __init__(self, *args: Any, max_bad_share: float = 0.05, **kwargs: Any) -> None:
        if not 0 <= max_bad_share <= 1:
            raise ValueError(f'max_bad_share={max_bad_share} must be in 0..1')
        self.max_bad_share = max_bad_share
        self.faults: list[Fault] = []
        pipeline = kwargs.get('pipeline', [])
        self.with_mask = any(isinstance(step, dict) and step.get('with_mask') for step in pipeline)
        super().__init__(*args, **kwargs)

    def full_init(self) -> None:
        """Read the annotations and make one flag per sample, shared with the workers."""
        if not self._fully_initialized:
            super().full_init()
            self.is_bad = torch.zeros(len(self), dtype=torch.bool).share_memory_()

    def COCOAPI(self, path: str) -> COCO:
        """Read the annotations, in training without the broken ones."""
        index = MMDetCocoDataset.COCOAPI()
        content = fileio.get(path)
        index.dataset = self._name_file(read_annotations, content)
        if self.test_mode:
            self._prepare_for_evaluation(index)
            return index
        self.faults = self._name_file(self._find_faults, index.dataset)
        log_faults(self.ann_file, self.faults)
        index.dataset = without_faults(index.dataset, self.faults)
        if not index.dataset['images'] or not index.dataset['annotations']:
            kinds = ', '.join(f'{number} x {kind}' for kind, number, *_ in count(self.faults))
            raise ValueError(f'{self.ann_file}: nothing is left to train on, there are {kinds}')
        index.dataset['categories'] = self._name_file(
            in_order_of_classes, index.dataset['categories'], self.metainfo['classes']
        )
        create_index(index)
        return index

    def _prepare_for_evaluation(self, index: COCO) -> None:
        """Check the order of categories and leave out annotations that crash pycocotools."""
        content = index.dataset
        if not isinstance(content, dict) or not isinstance(content.get('images'), list):
            raise ValueError(f"{self.ann_file}: no list 'images': this is no COCO annotation file")
        annotated = bool(content.get('annotations'))
        faults = (
            self._name_file(self._find_faults, content) if annotated else judge_entries(content)[0]
        )
        fatal = next((fault for fault in faults if fault.kind in _FATAL), None)
        try:
            create_index(index)  # as mmdet's CocoMetric does
        except (KeyError, TypeError) as error:
            fatal = fatal or (faults[0] if faults else f'not in COCO format, {error!r}')
        if fatal is not None:
            raise ValueError(
                f'{self.ann_file}: {fatal}. Evaluation needs the ground truth of each image; '
                f'see mmpaca check-data {self.ann_file} '
                f'{self.data_prefix.get("img", "IMG_DIR")} --fix OUT'
            )
        if annotated:
            self.faults = [fault for fault in faults if fault.kind in UNUSABLE]
            log_faults(self.ann_file, self.faults)
            index.dataset = for_evaluation(content, self.faults)
        if 'categories' in content:  # else nothing is annotated
            self._name_file(check_category_order, content['categories'], self.metainfo['classes'])
        create_index(index)

    def _find_faults(self, coco: dict) -> list[Fault]:
        return list(find_faults(coco, self.with_mask, thorough=False))

    def _name_file(self, function: Callable, *args: Any) -> Any:
        """Call a function and name the annotation file in its ValueError."""
        try:
            return function(*args)
        except (ValueError, RecursionError) as error:  # also what a JSON parser raises
            raise ValueError(f'{self.ann_file}: {error}') from None

    def prepare_data(self, idx: int) -> dict | None:
        """Load a sample; None if it is broken and to be replaced by another one.

        Raises:
            RuntimeError: a sample is broken, in testing; too many are, in training.
        """
        try:
            return super().prepare_data(idx)
        except Exception as error:
            path = self.get_data_info(idx)['img_path']
            if self.test_mode:
                raise RuntimeError(
                    f'{path}: {error}. No image is skipped in evaluation; see '
                    f'mmpaca check-data {self.ann_file} {self.data_prefix.get("img", "")}'
                ) from error
            if not self.is_bad[idx]:
                self.is_bad[idx] = True
                log_bad_data(f'bad sample {path}: {error}')
            bad = int(self.is_bad.sum())
            if bad > self.max_bad_share * len(self):
                raise RuntimeError(
                    f'{bad} of {len(self)} samples are broken, more than '
                    f'max_bad_share={self.max_bad_share}; the last one is {path}: {error}. List '
                    f'them with mmpaca check-data {self.ann_file} '
                    f'{self.data_prefix.get("img", "")}'
                ) from error
            return None

    def bad_files(self) -> list[str]:
        """Return the images that no worker of this rank could load so far."""
        return [self.get_data_info(int(i))['img_path'] for i in self.is_bad.nonzero()]


def create_index(index: COCO) -> None:
    """Index an annotation file that was put together in memory."""
    index.createIndex()
    index.img_ann_map, index.cat_img_map = index.imgToAnns, index.catToImgs


def log_faults(where: str, faults: list[Fault]) -> None:
    """Log faults by name, of very many the first ones."""
    for fault in faults[:_LOGGED]:
        log_bad_data(f'{where}: {fault} ({REMEDY[FAULTS[fault.kind]]})')
    if len(faults) > _LOGGED:
        log_bad_data(f'{where}: {len(faults) - _LOGGED} more faults; mmpaca check-data lists them')


def log_bad_data(message: str) -> None:
    """Log a warning from any rank."""
    # Other ranks log errors only, but each has its own samples.
    print_log(message, 'current', logging.WARNING if is_main_process() else logging.ERROR)
