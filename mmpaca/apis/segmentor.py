"""A segmentor of mmseg behind the interface of an inferencer.

mmseg's own MMSegInferencer gives a model whose checkpoint has no class names those of Cityscapes.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.device import get_device
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, TRANSFORMS
from mmengine.runner import load_checkpoint
from mmengine.structures import BaseDataElement

_LOADERS = ('LoadAnnotations', 'mmpaca.LoadVerifiedSegMap')


class Segmentor:
    """Model and test pipeline of a config.

    Args:
        config: config of mmseg.
        checkpoint: weights; None keeps the model randomly initialised.
        device: e.g. ``'cuda:0'``; None for the GPU if there is one.

    Attributes:
        model: the segmentor; ``dataset_meta`` has class names and palette, from the checkpoint or
            else from the config's test dataset.
    """

    def __init__(self, config: Config, checkpoint: str | None, device: str | None) -> None:
        # Registers what the scope's types name.
        import mmseg.datasets
        import mmseg.models  # noqa: F401

        device = device or get_device()
        config.model.pretrained = None
        model = MODELS.build(config.model)
        loaded = load_checkpoint(model, checkpoint, 'cpu', logger='silent') if checkpoint else {}
        model = revert_sync_batchnorm(model) if device == 'cpu' else model
        meta = loaded.get('meta', {}).get('dataset_meta') or {}
        model.dataset_meta = meta if meta.get('classes') else _meta_of(config)
        model.cfg = config  # as other inferencers do
        self.model = model.to(device).eval()
        steps = config.test_dataloader.dataset.pipeline
        keep = [step for step in steps if step.type not in _LOADERS]
        self._pipeline = Compose([TRANSFORMS.build(step) for step in keep[1:]])

    def preprocess(self, images: Sequence[np.ndarray], batch_size: int) -> tuple[dict]:
        """Collate images, (height, width, 3) uint8 BGR, all of one size, to one batch."""
        samples = []
        for image in images:
            shape = image.shape[:2]
            samples.append(self._pipeline(dict(img=image, img_shape=shape, ori_shape=shape)))
        return (pseudo_collate(samples),)

    @torch.no_grad()
    def forward(self, batch: dict) -> list[BaseDataElement]:
        """Predict a batch."""
        return self.model.test_step(batch)


def _meta_of(config: Config) -> dict[str, Any]:
    dataset = config.test_dataloader.dataset
    if dataset.get('metainfo', {}).get('classes'):
        return dict(dataset.metainfo)
    from mmseg.registry import DATASETS

    return getattr(DATASETS.get(dataset.type), 'METAINFO', {})
