"""DistributedDataParallel for CPU processes."""

from typing import Any

import torch.distributed as dist
from mmengine.model import MMDistributedDataParallel, revert_sync_batchnorm
from torch import nn

from mmpaca.registry import MODEL_WRAPPERS


@MODEL_WRAPPERS.register_module()
class CPUDistributedDataParallel(MMDistributedDataParallel):
    """MMDistributedDataParallel on CPUs, where SyncBatchNorm does not work: it becomes BatchNorm.

    Each process normalises its own batch. Before an evaluation all take the running statistics of
    rank 0, which are those in its checkpoints.

    Args:
        module: the model.
        **kwargs: arguments of MMDistributedDataParallel.
    """

    def __init__(self, module: nn.Module, **kwargs: Any) -> None:
        super().__init__(module=revert_sync_batchnorm(module), **kwargs)

    def train(self, mode: bool = True) -> 'CPUDistributedDataParallel':
        """Set the mode. Call it on every rank: with False, buffers are broadcast."""
        super().train(mode)
        if not mode:
            for buffer in self.module.buffers():
                dist.broadcast(buffer, src=0)
        return self
