"""Unwrap a runner's model and its datasets."""

from collections.abc import Iterator

from mmengine.model import BaseTTAModel, is_model_wrapper
from torch import nn
from torch.utils.data import Dataset


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
                '--tta or without ClusterAlignmentMetric, FaithfulnessMetric and ClusterVisualizationHook'
            )
        model = model.get_submodule('module')
    return model


def inner_datasets(dataset: Dataset) -> Iterator:
    """The datasets inside any dataset wrappers of mmengine, mmdet and torch."""
    inner = getattr(dataset, 'datasets', None) or [getattr(dataset, 'dataset', None)]
    if inner == [None]:
        yield dataset
        return
    for one in inner:
        yield from inner_datasets(one)
