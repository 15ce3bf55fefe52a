"""Unwrap a runner's model."""

from mmengine.model import BaseTTAModel, is_model_wrapper
from torch import nn


def unwrapped(model: nn.Module, allow_tta: bool = True) -> nn.Module:
    """The detector, classifier or segmentor inside DistributedDataParallel and test-time augmentation.

    Args:
        model: A runner's model.
        allow_tta: Also unwrap test-time augmentation.

    Raises:
        ValueError: The model is augmented at test time and ``allow_tta`` is False. Recorded
            clusters would then belong to several versions of an image.
    """
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        if isinstance(model, BaseTTAModel) and not allow_tta:
            raise ValueError(
                'clusters cannot be compared or drawn under test-time augmentation; run without '
                '--tta or without ClusterAlignmentMetric and ClusterVisualizationHook'
            )
        model = model.get_submodule('module')
    return model
