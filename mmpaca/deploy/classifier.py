"""Classifiers of mmpretrain: the softmax of the head's logits."""

from typing import Any

from torch import Tensor, nn

from .images import Normalise


class Classifier(nn.Module):
    """Backbone, neck and a head that predicts as mmpretrain's ClsHead.

    Args:
        model: ImageClassifier of mmpretrain.
    """

    outputs = ('scores',)

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.normalise = Normalise(model.data_preprocessor)

    def forward(self, image: Tensor, scale: Tensor) -> tuple[Tensor, ...]:
        """Classify images (B, 3, H, W) RGB, 0 to 255: scores (B, C). The scale is ignored."""
        feats = self.model.extract_feat(self.normalise(image))
        return (self.model.head(feats).softmax(1),)
