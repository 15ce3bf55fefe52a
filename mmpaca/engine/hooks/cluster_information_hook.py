"""A loss for clusters that say more about the image."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS as ROOT_HOOKS
from mmengine.runner import Runner
from torch import Tensor, nn

from mmpaca.engine.wrappers import unwrapped
from mmpaca.models import PatchToClusterAttention
from mmpaca.registry import HOOKS


def information(assignment: Tensor) -> Tensor:
    """Mutual information of cluster and patch, where all clusters are equally likely.

    H(mean of the rows of Z) - mean of H(row): large if the clusters take few patches each, and
    different ones.

    Args:
        assignment: Z, (B, M, N); every row sums to one.

    Returns:
        Mean over the batch, relative to log M: 0 if all clusters are alike, 1 if no two share a patch.
    """
    of_all, of_each = entropy(assignment.mean(1)).mean(), entropy(assignment).mean()
    return (of_all - of_each) / math.log(assignment.shape[1])


def entropy(p: Tensor) -> Tensor:
    """Entropy over the last dimension, in nats; its gradient is finite where p is 0, too."""
    return -(p * p.clamp(min=torch.finfo(p.dtype).tiny).log()).sum(-1)


@ROOT_HOOKS.register_module()
@HOOKS.register_module()
class ClusterInformationHook(Hook):
    """Add ``loss_clusters``, which is small if clusters take few patches each, and different ones.

    1 - I / log M, with the mutual information I of cluster and patch, M equally likely clusters and
    the assignment Z as probability of a patch; mean over images and over the blocks that compute Z.
    Works for detectors, classifiers and segmentors.

    Args:
        weight: Of the loss.

    Raises:
        ValueError: No block of the model computes an assignment.
    """

    def __init__(self, weight: float = 1.0) -> None:
        self.weight = weight
        self._assignments: list[Tensor] = []
        self._handles: list[Any] = []

    def before_train(self, runner: Runner) -> None:
        """Read assignments and add the loss wherever the model computes losses."""
        model = unwrapped(runner.model)
        blocks = [
            module
            for module in model.modules()
            if isinstance(module, PatchToClusterAttention) and module.clustering is not None
        ]
        if not blocks:
            raise ValueError('ClusterInformationHook: no block of the model computes clusters')
        self._handles = [block.register_forward_hook(self._keep) for block in blocks]
        # Recomputation in the backward pass leaves assignments behind.
        self._handles += [
            model.register_forward_pre_hook(lambda *call: self._assignments.clear()),
            model.register_forward_hook(self._add_loss),
        ]

    def after_train(self, runner: Runner) -> None:
        """Leave the model as it was."""
        for handle in self._handles:
            handle.remove()
        self._assignments.clear()

    def penalty(self, assignment: Tensor) -> Tensor:
        """What is added for the assignment of a block, (B, M, N)."""
        return 1 - information(assignment)

    def _keep(self, module: nn.Module, args: tuple, output: tuple[Tensor, Tensor]) -> None:
        if torch.is_grad_enabled():
            self._assignments.append(output[1])

    def _add_loss(self, model: nn.Module, args: tuple, output: Any) -> Any:
        if not isinstance(output, Mapping):  # predictions
            return output
        penalties = torch.stack([self.penalty(z) for z in self._assignments])
        return {**output, 'loss_clusters': self.weight * penalties.mean()}
