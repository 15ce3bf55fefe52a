"""COCO datasets of which a part may be broken."""

import logging
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

from .coco_faults import FAULTS, REMEDY, Fault, count, find_faults, without_faults
from .images import MAX_PIXELS, decode


@TRANSFORMS.register_module()
class LoadVerifiedImageFromFile(MMCVLoadImageFromFile):
    """mmcv's, but a file that is truncated or of another size than annotated is an error.

    Args:
        max_pixels: of the largest image that is decoded.
        **kwargs: mmcv's, but for ``ignore_empty`` and ``file_client_args``.

    Raises:
        ValueError: one of those two is given.
    """

    def __init__(self, max_pixels: int = MAX_PIXELS, **kwargs: Any) -> None:
        if kwargs.pop('ignore_empty', False):
            raise ValueError(
                'ignore_empty=True is not for mmpaca.LoadVerifiedImageFromFile: remove it, for '
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
            ValueError: see :func:`mmpaca.datasets.images.decode`.
        """
        content = fileio.get(results['img_path'], backend_args=self.backend_args)
        size = (results['height'], results['width']) if 'height' in results else None
        image = decode(content, size, self.color_type, self.imdecode_backend, self.max_pixels)
        if self.to_float32:
            image = image.astype(np.float32)
        return {**results, 'img': image, 'img_shape': image.shape[:2], 'ori_shape': image.shape[:2]}


@DATASETS.register_module()
class TolerantCocoDataset(MMDetCocoDataset):
    """mmdet's CocoDataset, of which a part may be broken.

    Annotations that mmdet would stumble over are left out when the file is read; an image that
    cannot be loaded is replaced by another one, as mmdet does with one that has no instances
    left. Each is logged once, by its name, and :class:`mmpaca.engine.BadDataSummaryHook` sums up. In
    testing nothing is replaced: a broken image is an error that names it.

    Args:
        max_bad_share: of the samples; where more of them turn out to be broken, training stops.
        **kwargs: mmdet's.

    Raises:
        ValueError: ``max_bad_share`` is not in 0..1; in training, the file is none of COCO's, has
            nothing that is whole, or lacks a class.
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
        """Read the annotations; then one flag per sample, shared with the loader's workers."""
        if not self._fully_initialized:
            super().full_init()
            self.is_bad = torch.zeros(len(self), dtype=torch.bool).share_memory_()

    def COCOAPI(self, path: str) -> COCO:
        """What is in the file, in training without what is broken."""
        if self.test_mode:
            return MMDetCocoDataset.COCOAPI(path)
        index = MMDetCocoDataset.COCOAPI()
        # A remote file's copy has no suffix that would say so.
        index.dataset = fileio.load(path, file_format='json')
        try:
            self.faults = list(find_faults(index.dataset, self.with_mask, thorough=False))
        except ValueError as error:
            raise ValueError(f'{self.ann_file}: {error}') from None
        for fault in self.faults:
            _log(f'{self.ann_file}: {fault} ({REMEDY[FAULTS[fault.kind]]})')
        index.dataset = without_faults(index.dataset, self.faults)
        self._check_left(index.dataset)
        index.createIndex()
        index.img_ann_map, index.cat_img_map = index.imgToAnns, index.catToImgs
        return index

    def _check_left(self, coco: dict) -> None:
        if not coco['images'] or not coco['annotations']:
            kinds = ', '.join(f'{number} x {kind}' for kind, number, *_ in count(self.faults))
            raise ValueError(f'{self.ann_file}: nothing is left to train on, there are {kinds}')
        names = [category['name'] for category in coco['categories']]
        unknown = [name for name in self.metainfo['classes'] if name not in names]
        if unknown:  # mmdet's labels would be those of other classes
            raise ValueError(
                f'{self.ann_file} has the categories {names}, not {unknown}: set '
                'dataset.metainfo.classes to names in the file'
            )

    def prepare_data(self, idx: int) -> dict | None:
        """A sample, or None where it is broken and another one shall take its place.

        Raises:
            RuntimeError: in testing; in training, where too many are broken.
        """
        try:
            return super().prepare_data(idx)
        except Exception as error:
            path = self.get_data_info(idx)['img_path']
            if self.test_mode:
                raise RuntimeError(
                    f'{path}: {error}. Nothing is left out of what is evaluated; see '
                    f'tools/analysis/check_coco.py {self.ann_file} {self.data_prefix.get("img", "")}'
                ) from error
            if not self.is_bad[idx]:
                self.is_bad[idx] = True
                _log(f'bad sample {path}: {error}')
            bad = int(self.is_bad.sum())
            if bad > self.max_bad_share * len(self):
                raise RuntimeError(
                    f'{bad} of {len(self)} samples are broken, more than '
                    f'max_bad_share={self.max_bad_share}; the last one is {path}: {error}. List '
                    f'them with tools/analysis/check_coco.py {self.ann_file} '
                    f'{self.data_prefix.get("img", "")}'
                ) from error
            return None

    def bad_files(self) -> list[str]:
        """Images that could not be loaded so far, by any worker of this rank."""
        return [self.get_data_info(int(i))['img_path'] for i in self.is_bad.nonzero()]


def _log(message: str) -> None:
    # mmengine's other ranks log errors only, but each has its own samples.
    print_log(message, 'current', logging.WARNING if is_main_process() else logging.ERROR)
