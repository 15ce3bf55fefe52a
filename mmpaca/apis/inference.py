"""Running a detector or classifier on image files through mmdet's or mmpretrain's own code."""

import copy
from pathlib import Path

import mmcv
import numpy as np
from mmengine.config import Config
from mmengine.runner.checkpoint import CheckpointLoader
from mmengine.structures import BaseDataElement

from mmpaca.checkpoint.fitting import check_fit


class Predictor:
    """A model with its test pipeline.

    Args:
        config: of mmdet or mmpretrain.
        checkpoint: weights; None leaves them random.
        device: e.g. ``'cuda:0'``.

    Raises:
        ValueError: the config is neither mmdet's nor mmpretrain's.
        RuntimeError: the checkpoint fits in part only.

    Attributes:
        model: the detector or classifier.
        classes: names of its classes, or None.
    """

    def __init__(
        self, config: str | Path | Config, checkpoint: str | Path | None, device: str
    ) -> None:
        checkpoint = None if checkpoint is None else str(checkpoint)
        config = copy.deepcopy(config) if isinstance(config, Config) else Config.fromfile(config)
        scope = config.get('default_scope')
        if scope not in ('mmdet', 'mmpretrain'):
            raise ValueError(
                f'default_scope={scope!r} in {config.filename}: only configs of mmdet (detectors) '
                'and mmpretrain (classifiers) are supported'
            )
        config.model.backbone.init_cfg = None  # the checkpoint has everything
        open_model = _open_detector if scope == 'mmdet' else _open_classifier
        self.model, self._predict, self._visualizer = open_model(config, checkpoint, device)
        if checkpoint is not None:
            # Read again: mmdet's and mmpretrain's functions say not what fitted.
            weights = CheckpointLoader.load_checkpoint(checkpoint, map_location='cpu')
            check_fit(self.model, weights)
        meta = getattr(self.model, 'dataset_meta', None) or getattr(self.model, '_dataset_meta', {})
        self.classes = meta.get('classes')

    def __call__(self, path: str | Path) -> tuple[np.ndarray, BaseDataElement]:
        """The image, (height, width, 3) uint8 RGB, and what the model says about it."""
        return mmcv.imread(path, channel_order='rgb'), self._predict(str(path))

    def draw(self, image: np.ndarray, sample: BaseDataElement, score_thr: float) -> np.ndarray:
        """The prediction, drawn by mmdet's or mmpretrain's visualizer."""
        return self._visualizer(image, sample, score_thr)


def _open_detector(config: Config, checkpoint: str | None, device: str) -> tuple:
    from mmdet.apis import inference_detector, init_detector
    from mmdet.visualization import DetLocalVisualizer

    model = init_detector(config, checkpoint, device=device)
    visualizer = DetLocalVisualizer(line_width=config.get('visualizer', {}).get('line_width', 3))
    visualizer.dataset_meta = model.dataset_meta

    def draw(image: np.ndarray, sample: BaseDataElement, score_thr: float) -> np.ndarray:
        visualizer.add_datasample('', image, sample, draw_gt=False, pred_score_thr=score_thr)
        return visualizer.get_image()

    return model, lambda path: inference_detector(model, path), draw


def _open_classifier(config: Config, checkpoint: str | None, device: str) -> tuple:
    from mmpretrain.apis import ImageClassificationInferencer
    from mmpretrain.visualization import UniversalVisualizer

    inferencer = ImageClassificationInferencer(config, checkpoint or False, device=device)
    visualizer = UniversalVisualizer()

    def draw(image: np.ndarray, sample: BaseDataElement, score_thr: float) -> np.ndarray:
        return visualizer.visualize_cls(
            image, sample, classes=inferencer.classes, draw_gt=False, resize=320
        )

    def predict(path: str) -> BaseDataElement:
        (batch,) = inferencer.preprocess([path])
        return inferencer.forward(batch)[0]

    return inferencer.model, predict, draw
