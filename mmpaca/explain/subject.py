"""One image in a model: the network's input, and the scores of its detections."""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import TRANSFORMS, DefaultScope
from torch import Tensor
from torchvision.ops import box_iou

from .geometry import Geometry
from .logits import class_logits
from .scene import Detection

_PIXELS_PER_BATCH = 2**20  # of perturbed images, which bounds the memory


class Subject:
    """An image as a model sees it.

    Args:
        model: detector, classifier or segmentor as mmdet's ``init_detector``, the inferencers of
            mmdet and mmpretrain or :class:`mmpaca.apis.inference.Predictor` open it, in eval mode.
        image: (height, width, 3) uint8 RGB.

    Attributes:
        image: the image.
        inputs: the network's input, (1, 3, H, W), normalised and padded.
        sample: data sample without predictions.
        geometry: position of the network's maps on the image.
        batch_size: number of perturbed images that :meth:`scores` may be given at once.

    Raises:
        ValueError: the image is not uint8 RGB, or the model does not know its config.
    """

    def __init__(self, model: Any, image: np.ndarray) -> None:
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(
                f'image is {image.dtype} of shape {image.shape}; give (height, width, 3) uint8 RGB'
            )
        self.model = model
        self.image = image
        pipeline = _pipeline(model)
        shape = image.shape[:2]
        data = pipeline(
            dict(
                img=np.ascontiguousarray(image[..., ::-1]),  # pipelines read BGR
                img_shape=shape, ori_shape=shape, img_id=0, img_path=None,
            )
        )  # fmt: skip
        batch = model.data_preprocessor(pseudo_collate([data]), False)
        self.inputs: Tensor = batch['inputs']
        (self.sample,) = batch['data_samples']
        self.geometry = Geometry.from_meta(self.sample.metainfo)
        self.batch_size = max(1, _PIXELS_PER_BATCH // self.inputs[0, 0].numel())

    def logits(self, inputs: Tensor, detections: Sequence[Detection]) -> Tensor:
        """Class logits of detections, with the graph of gradients.

        Args:
            inputs: like :attr:`inputs`.
            detections: regions with a class; predicted by this model or not.

        Returns:
            (D,), see :func:`mmpaca.explain.logits.class_logits`.
        """
        return class_logits(self.model, inputs, self.sample, self.geometry, detections)

    @torch.no_grad()
    def scores(self, inputs: Tensor, detections: Sequence[Detection]) -> np.ndarray:
        """Score how well perturbed images still show detections, as D-RISE does.

        Args:
            inputs: B perturbed images, (B, 3, H, W).
            detections: detections of the original image.

        Returns:
            (B, D) in 0..1. Of a detector it is the largest product of score and IoU with the
            detection's box, over the predictions of its class; of a classifier or segmentor the
            logistic function of the logit.
        """
        if not hasattr(self.model, 'bbox_head') and not hasattr(self.model, 'roi_head'):
            logits = [self.logits(one[None], detections) for one in inputs]
            return torch.stack(logits).sigmoid().cpu().numpy()
        found = self._predict(inputs)
        return np.array([[best_match(one, target) for target in detections] for one in found])

    def _predict(self, inputs: Tensor) -> list[Any]:
        """Predict boxes in pixels of the image; masks, which nobody reads here, are left out."""
        samples = [copy.deepcopy(self.sample) for _ in inputs]
        if not hasattr(self.model, 'roi_head'):
            with DefaultScope.overwrite_default_scope('mmdet'):
                found = self.model.predict(inputs, samples, rescale=True)
            return [sample.pred_instances for sample in found]
        feats = self.model.extract_feat(inputs)
        proposals = self.model.rpn_head.predict(feats, samples, rescale=False)
        head, metas = self.model.roi_head, [sample.metainfo for sample in samples]
        return head.predict_bbox(feats, metas, proposals, head.test_cfg, rescale=True)


def best_match(found: Any, target: Detection) -> float:
    """Largest product of score and IoU of the predictions of a detection's class.

    Args:
        found: ``bboxes``, (K, 4), ``scores`` and ``labels``, (K,).
        target: the detection.
    """
    same = found.labels == target.label
    if not same.any():
        return 0.0
    ious = box_iou(found.bboxes[same], found.bboxes.new_tensor([target.box]))[:, 0]
    return float((found.scores[same] * ious).max())


def _pipeline(model: Any) -> Compose:
    """Build the test pipeline of a model's config without what reads files."""
    # mmpretrain's name for it is the second one.
    config = getattr(model, 'cfg', None) or getattr(model, '_config', None)
    if config is None:
        raise ValueError(
            f'{type(model).__name__} has no cfg: set model.cfg to its config, as init_detector does'
        )
    with DefaultScope.overwrite_default_scope(config.get('default_scope', 'mmdet')):
        steps = config.test_dataloader.dataset.pipeline
        return Compose([TRANSFORMS.build(step) for step in steps if not _loads(step)])


def _loads(step: dict) -> bool:
    return str(step['type']).rpartition('.')[2].startswith('Load')
