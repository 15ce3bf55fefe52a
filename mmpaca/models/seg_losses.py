"""Cross-entropy with class weights for label maps that have ignored pixels."""

from collections.abc import Sequence

import torch.nn.functional as F
from mmengine.registry import MODELS as ROOT_MODELS
from torch import Tensor, nn

from mmpaca.registry import MODELS


@ROOT_MODELS.register_module()
@MODELS.register_module()
class SegCrossEntropyLoss(nn.Module):
    """Cross-entropy, averaged over the labelled pixels with the weights of their classes.

    For ``loss_decode`` of mmseg's heads. mmseg's own CrossEntropyLoss fails with ``class_weight`` on
    ignored pixels: it looks up the weight of class 255.

    Args:
        class_weight: a weight per class; None weighs all alike.
        loss_weight: factor of the loss.
        loss_name: name in the log, which must begin with ``loss_``.

    Example:
        >>> import torch
        >>> from mmpaca.models import SegCrossEntropyLoss
        >>> loss = SegCrossEntropyLoss(class_weight=[1.0, 3.0])
        >>> label = torch.tensor([[[0, 1, 255]]])
        >>> round(loss(torch.zeros(1, 2, 1, 3), label, ignore_index=255).item(), 4)  # ln 2
        0.6931
    """

    def __init__(
        self,
        class_weight: Sequence[float] | None = None,
        loss_weight: float = 1.0,
        loss_name: str = 'loss_ce',
    ) -> None:
        super().__init__()
        self.class_weight = None if class_weight is None else list(class_weight)
        self.loss_weight = loss_weight
        self.loss_name = loss_name

    def forward(
        self,
        logits: Tensor,
        label: Tensor,
        weight: Tensor | None = None,
        ignore_index: int = 255,
    ) -> Tensor:
        """Compute the loss; 0 if there are no labelled pixels.

        Args:
            logits: (B, K, H, W).
            label: class indices, (B, H, W).
            weight: weights of pixels, (B, H, W), as mmseg's samplers give them.
            ignore_index: label of pixels without a loss.
        """
        by_class = None if self.class_weight is None else logits.new_tensor(self.class_weight)
        losses = F.cross_entropy(
            logits, label, weight=by_class, ignore_index=ignore_index, reduction='none'
        )
        valid = label != ignore_index
        total = valid.sum() if by_class is None else by_class[label[valid]].sum()
        if weight is not None:
            losses = losses * weight
        return self.loss_weight * losses.sum() / total.clamp(min=1e-6)
