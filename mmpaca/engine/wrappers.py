"""The model that a runner's wrappers hold."""

from mmengine.model import BaseTTAModel, is_model_wrapper
from torch import nn


def unwrapped(model: nn.Module) -> nn.Module:
    """The detector or classifier inside DistributedDataParallel and test-time augmentation."""
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.get_submodule('module')
    return model


def bare_model(model: nn.Module) -> nn.Module:
    """The model without DistributedDataParallel.

    Raises:
        ValueError: it augments at test time: the clusters are then those of many versions of an
            image.
    """
    while is_model_wrapper(model):
        model = model.get_submodule('module')
    if isinstance(model, BaseTTAModel):
        raise ValueError(
            'clusters cannot be compared or drawn under test-time augmentation; run without --tta '
            'or without ClusterAlignmentMetric and ClusterVisualizationHook'
        )
    return model
