"""Inference on images with detectors of mmdet, classifiers of mmpretrain, segmentors of mmseg.

After ``import mmpaca``, mmdet's and mmpretrain's own inference API serves PaCa models as any other::

    import mmpaca
    from mmdet.apis import DetInferencer, inference_detector, init_detector

    model = init_detector(config, checkpoint, device='cuda:0')
    result = inference_detector(model, 'image.jpg')

:class:`Predictor` adds one interface for all three, an error for weights that match
the model only in part, and pictures that are readable at any image size.
"""

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner.checkpoint import CheckpointLoader
from mmengine.structures import BaseDataElement

from mmpaca.checkpoint.fitting import check_fit
from mmpaca.checkpoint.loading import weights_of
from mmpaca.compat import require
from mmpaca.datasets.images import read_image
from mmpaca.explain.drawing import draw_classes, draw_detections, draw_regions
from mmpaca.explain.scene import read_detections
from mmpaca.models.fitting import CheckpointError

from .segmentor import Segmentor

TOP_K = 5  # classes that are listed for a classifier
MAX_MASK_BYTES = 6 * 2**30  # of what a model predicts for each pixel of an image


class Predictor:
    """A detector, classifier or segmentor with its test pipeline.

    Args:
        config: config of mmdet, mmpretrain or mmseg.
        checkpoint: weights; None keeps the model randomly initialised.
        device: e.g. ``'cuda:0'``; None for the GPU if there is one.

    Raises:
        ImportError: the config is mmpretrain's or mmseg's, which is not installed.
        ValueError: the config is of another codebase.
        CheckpointError: the checkpoint matches the model only in part, or is damaged.

    Attributes:
        model: the detector, classifier or segmentor.
        task: ``'detection'``, ``'classification'`` or ``'segmentation'``.
        classes: class names, or None.

    Example:
        >>> predictor = Predictor('configs/mask_rcnn_paca.py', 'epoch_12.pth')  # doctest: +SKIP
        >>> image, sample = predictor('image.jpg')  # doctest: +SKIP
        >>> picture = predictor.draw(image, sample, score_thr=0.3)  # doctest: +SKIP
    """

    def __init__(
        self,
        config: str | Path | Config,
        checkpoint: str | Path | None,
        device: str | None = None,
    ) -> None:
        checkpoint = None if checkpoint is None else str(checkpoint)
        config = copy.deepcopy(config) if isinstance(config, Config) else Config.fromfile(config)
        scope = config.get('default_scope')
        if scope not in _TASKS:
            raise ValueError(
                f'default_scope={scope!r} in {config.filename}: only configs of mmdet (detectors), '
                'mmpretrain (classifiers) and mmseg (segmentors) are supported'
            )
        for step in config.test_dataloader.dataset.get('pipeline', ()):
            # The inferencers replace the loader, which they find by mmcv's name, by one of arrays.
            if step.type in ('mmpaca.LoadVerifiedImageFromFile', 'LoadVerifiedImageFromFile'):
                step.type = 'LoadImageFromFile'
                step.pop('max_pixels', None)
        if 'backbone' in config.model:
            config.model.backbone.init_cfg = None  # the checkpoint contains all weights
        weights = None
        if checkpoint is not None:  # the inferencers neither check it nor report what matched
            weights = CheckpointLoader.load_checkpoint(checkpoint, 'cpu', logger='silent')
            weights_of(weights)
        self.task, open_inferencer = _TASKS[scope]
        self._scope = scope
        with DefaultScope.overwrite_default_scope(scope):
            self._inferencer = open_inferencer(config, checkpoint, device)
        self.model = self._inferencer.model
        if weights is not None:
            check_fit(self.model, weights)
        meta = getattr(self.model, 'dataset_meta', None) or getattr(self.model, '_dataset_meta', {})
        self.classes: Sequence[str] | None = meta.get('classes')
        number = max(getattr(head, 'num_classes', 0) or 0 for head in self.model.modules())
        if self.classes is not None and not number <= len(self.classes):
            raise CheckpointError(
                f'{checkpoint or config.filename} names {len(self.classes)} classes, the model has '
                f'{number}: correct dataset_meta of the checkpoint, or metainfo of the config'
            )
        palette = meta.get('palette')
        self._palette = palette if _is_palette(palette) else None

    def __call__(self, path: str | Path) -> tuple[np.ndarray, BaseDataElement]:
        """Predict one image file.

        Returns:
            The image, (height, width, 3) uint8 RGB, and the data sample with its prediction.
        """
        image = read_image(path)
        return image[..., ::-1], self.predict([image])[0]

    def predict(self, images: Sequence[np.ndarray]) -> list[BaseDataElement]:
        """Predict a batch.

        Args:
            images: each (height, width, 3) uint8 BGR, of any sizes.

        Returns:
            A data sample for each image.

        Raises:
            ValueError: as :meth:`check_size`.
        """
        for image in images:
            self.check_size(*image.shape[:2])
        if self.task == 'segmentation' and len({image.shape for image in images}) > 1:
            # mmseg stacks the images of a batch, which all have one size.
            return [self.predict([image])[0] for image in images]
        # A script may have predictors of several codebases.
        with DefaultScope.overwrite_default_scope(self._scope):
            (batch,) = self._inferencer.preprocess(list(images), batch_size=len(images))
            if self.task == 'detection':
                _, batch = batch  # mmdet's has the images beside the data
            return self._inferencer.forward(batch)

    def check_size(self, height: int, width: int) -> None:
        """Refuse images whose masks would fill the memory: they have the size of the image.

        Raises:
            ValueError: names the size and the remedy.
        """
        per_pixel = _mask_bytes(self.model, self.task)
        if height * width * per_pixel > MAX_MASK_BYTES:
            raise ValueError(
                f'is {width}x{height}: the masks that this model predicts may take '
                f'{height * width * per_pixel / 2**30:.0f} GiB, more than '
                f'{MAX_MASK_BYTES / 2**30:.0f}; scale the image down to '
                f'{MAX_MASK_BYTES / per_pixel / 1e6:.0f} million pixels'
            )

    def to_dict(self, sample: BaseDataElement) -> dict[str, Any]:
        """Convert a prediction to numbers and strings for JSON.

        Returns:
            A detector's ``labels``, ``scores``, ``bboxes`` (left, top, right, bottom), ``masks``
            (COCO's compressed RLE) as mmdet's inferencer writes them, and ``classes``, the name of
            each label. ``panoptic_seg`` is an image, (height, width, 3) uint8 RGB. A classifier's
            ``pred_scores``, ``pred_label``, ``pred_score``, ``pred_class`` as mmpretrain's
            inferencer returns them, and ``top5``, a list of ``label``, ``class``, ``score``. A
            segmentor's ``sem_seg``, the class of each pixel as an array, (height, width), and
            ``classes``, the share of pixels of each class that occurs, by name.
        """
        if self.task == 'detection':
            result = self._inferencer.pred2dict(sample)
            result['classes'] = [self._name(label) for label in result.get('labels', ())]
            return result
        if self.task == 'segmentation':
            labels = sample.pred_sem_seg.data[0].cpu().numpy()
            found, counts = np.unique(labels, return_counts=True)
            shares = (counts / labels.size).tolist()
            names = [self._name(label) for label in found]
            return dict(sem_seg=labels, classes=dict(zip(names, shares, strict=True)))
        (result,) = self._inferencer.postprocess([sample], [])
        result['pred_scores'] = result['pred_scores'].tolist()
        result['top5'] = [
            {'label': label, 'class': self._name(label), 'score': score}
            for label, score in _top(sample)
        ]
        return result

    def draw(self, image: np.ndarray, sample: BaseDataElement, score_thr: float) -> np.ndarray:
        """Draw a prediction.

        Args:
            image: (height, width, 3) uint8 RGB.
            sample: its prediction.
            score_thr: lowest score of a detection that is drawn.

        Returns:
            (H, W, 3) uint8 RGB. Small images are enlarged; the classes of a classifier or segmentor
            are below it.
        """
        if self.task == 'classification':
            return draw_classes(
                image, [(self._name(label), score) for label, score in _top(sample)]
            )
        if self.task == 'segmentation':
            labels = sample.pred_sem_seg.data[0].cpu().numpy()
            names = {int(label): self._name(label) for label in np.unique(labels)}
            return draw_regions(image, labels, names, self._palette)
        if 'pred_panoptic_seg' in sample:
            visualizer = self._inferencer.visualizer
            visualizer.add_datasample('', image, sample, draw_gt=False, pred_score_thr=score_thr)
            return visualizer.get_image()
        detections = read_detections(sample, image.shape[:2], self.classes, score_thr)
        return draw_detections(image, detections, self._palette)

    def _name(self, label: int) -> str:
        return f'class {label}' if self.classes is None else str(self.classes[label])


def _open_detector(config: Config, checkpoint: str | None, device: str | None) -> Any:
    from mmdet.apis import DetInferencer

    config.setdefault('visualizer', dict(type='DetLocalVisualizer'))
    config.visualizer.vis_backends = None  # pictures are returned, not stored
    return DetInferencer(config, checkpoint, device=device, show_progress=False)


def _open_classifier(config: Config, checkpoint: str | None, device: str | None) -> Any:
    require('mmpretrain')
    from mmengine.device import get_device
    from mmpretrain.apis import ImageClassificationInferencer

    return ImageClassificationInferencer(config, checkpoint or False, device=device or get_device())


def _open_segmentor(config: Config, checkpoint: str | None, device: str | None) -> Any:
    require('mmseg')
    return Segmentor(config, checkpoint, device)


_TASKS: dict[str | None, tuple[str, Callable[..., Any]]] = {
    'mmdet': ('detection', _open_detector),
    'mmpretrain': ('classification', _open_classifier),
    'mmseg': ('segmentation', _open_segmentor),
}


def _is_palette(palette: Any) -> bool:
    """True for colours; mmdet has ``'random'``, too."""
    return isinstance(palette, list | tuple) and all(
        isinstance(colour, list | tuple)
        and len(colour) == 3
        and all(isinstance(value, int) and 0 <= value < 256 for value in colour)
        for colour in palette
    )


def _mask_bytes(model: Any, task: str) -> int:
    """Bytes of a prediction for each pixel of the image; 0 for boxes and classes."""
    if task == 'segmentation':
        return 4 * max(getattr(head, 'num_classes', 1) for head in model.modules())
    if task == 'classification':
        return 0
    config = model.test_cfg or {}
    config = config.get('rcnn') or config  # of its second stage
    number = config.get('max_per_img') or config.get('max_per_image') or 100
    if hasattr(model, 'panoptic_fusion_head'):  # masks are interpolated before they are chosen
        return 4 * max(number, getattr(model.panoptic_head, 'num_queries', 0))
    if hasattr(getattr(model, 'bbox_head', None), 'mask_head'):  # RTMDet-Ins, too
        return 4 * number
    return number if getattr(model, 'with_mask', False) else 0


def _top(sample: BaseDataElement) -> list[tuple[int, float]]:
    """Label and score of a classifier's best classes, in descending order."""
    best = sample.pred_score.topk(min(TOP_K, len(sample.pred_score)))
    return list(zip(best.indices.tolist(), best.values.tolist(), strict=True))
