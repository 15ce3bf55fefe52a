"""Images and label maps of semantic segmentation, with errors that name the file."""

import io
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform
from mmengine import fileio
from PIL import Image, UnidentifiedImageError

from mmpaca.registry import TRANSFORMS

from .coco import LoadVerifiedImageFromFile

IGNORED = 255  # mmseg's label of pixels without a class


class SegFileError(ValueError):
    """An image or label map that cannot be used; the message names it."""


@TRANSFORMS.register_module()
class LoadVerifiedSegImage(LoadVerifiedImageFromFile):
    """Load an image of a segmentation dataset.

    Args:
        **kwargs: arguments of :class:`~mmpaca.datasets.coco.LoadVerifiedImageFromFile`.
    """

    def transform(self, results: dict) -> dict:
        """Read ``img_path``; adds ``img``, ``img_shape`` and ``ori_shape``.

        Raises:
            SegFileError: the file is missing, truncated or no image.
        """
        try:
            return super().transform(results)
        except (OSError, ValueError) as error:
            raise SegFileError(f'image {results["img_path"]}: {error}') from error


@TRANSFORMS.register_module()
class LoadVerifiedSegMap(BaseTransform):
    """Load a label map: an image file with one class index per pixel.

    Takes the place of mmseg's LoadAnnotations, which reads 16-bit indices modulo 256 and resizes a
    map of another size than its image. ``reduce_zero_label`` and the classes that a dataset selects
    (``metainfo``) work as there. Without ``seg_map_path``, as in inference, nothing is loaded.

    Args:
        ignored_labels: labels of pixels without a class, in the files; they become 255.
        backend_args: file backend, see mmengine.fileio.
    """

    def __init__(self, ignored_labels: tuple = (), backend_args: dict | None = None) -> None:
        self.ignored_labels = tuple(ignored_labels)
        self.backend_args = backend_args

    def transform(self, results: dict) -> dict:
        """Read ``seg_map_path``; adds ``gt_seg_map``, (H, W) uint8.

        Raises:
            SegFileError: the file is missing, no label map, or not of the size of the image.
        """
        if 'seg_map_path' not in results:
            return results
        path = results['seg_map_path']
        labels = self._read(path)
        if labels.shape != tuple(results['ori_shape'][:2]):
            (height, width), (rows, columns) = labels.shape, results['ori_shape'][:2]
            raise SegFileError(
                f'label map {path} is {width}x{height}, its image {results["img_path"]} is '
                f'{columns}x{rows}'
            )
        labels[np.isin(labels, self.ignored_labels)] = IGNORED
        if results.get('reduce_zero_label'):
            labels = np.where(labels % IGNORED == 0, IGNORED, labels - 1)
        if results.get('label_map'):
            mapping = np.arange(256)
            mapping[list(results['label_map'])] = list(results['label_map'].values())
            labels = mapping[labels]
        fields = [*results.get('seg_fields', ()), 'gt_seg_map']
        return {**results, 'gt_seg_map': labels.astype(np.uint8), 'seg_fields': fields}

    def _read(self, path: str) -> np.ndarray:
        try:
            content = fileio.get(path, backend_args=self.backend_args)
            with Image.open(io.BytesIO(content)) as image:
                labels = np.array(image)
        except FileNotFoundError:
            raise SegFileError(
                f'label map {path} does not exist: check data_prefix.seg_map_path, img_suffix and '
                'seg_map_suffix of the dataset'
            ) from None
        except UnidentifiedImageError:
            raise SegFileError(f'label map {path} is no image file') from None
        except (OSError, SyntaxError) as error:
            raise SegFileError(f'label map {path} cannot be decoded: {error}') from error
        if labels.ndim != 2:
            raise SegFileError(
                f'label map {path} has {labels.shape[-1]} channels: give one class index per pixel'
            )
        labels = labels.astype(np.int64)
        if labels.max() > IGNORED:
            raise SegFileError(
                f'label map {path} has the label {labels.max()}: labels are 0 to 254, and 255 for '
                'pixels without a class'
            )
        return labels

    def __repr__(self) -> str:
        return f'{type(self).__name__}(ignored_labels={self.ignored_labels})'


def check_labels(labels: Any, num_classes: int, ignore_index: int, path: str) -> None:
    """Refuse labels that are not a class.

    On a GPU they fail as a device-side assertion, which names nothing.

    Args:
        labels: tensor of class indices.
        num_classes: number of classes.
        ignore_index: label of pixels without a class.
        path: the label map, for the error.

    Raises:
        SegFileError: names the file, the labels and the valid range.
    """
    wrong = labels[((labels < 0) | (labels >= num_classes)) & (labels != ignore_index)]
    if len(wrong):
        found = ', '.join(map(str, wrong.unique().tolist()[:5]))
        raise SegFileError(
            f'label map {path} has labels out of range: {found}; valid are 0 to {num_classes - 1} '
            f'for the {num_classes} classes of the model, and {ignore_index} for pixels without a '
            'class'
        )
