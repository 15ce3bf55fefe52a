"""Linear warm-up that is never a large part of a run."""

from mmengine.optim.scheduler import LinearLR
from torch.optim import Optimizer

from mmpaca.registry import PARAM_SCHEDULERS


@PARAM_SCHEDULERS.register_module()
class LinearWarmupLR(LinearLR):
    """mmengine's LinearLR over ``num_iters`` iterations, or a share of the run if that is shorter.

    A warm-up of 1000 iterations suits COCO, but is longer than many runs on small datasets.

    Args:
        optimizer: Optimizer or optimizer wrapper.
        num_iters: Number of warm-up iterations in a long run.
        max_share: Maximum share of the run, in (0, 1].
        start_factor: Factor of the learning rate at the first iteration.
        end: Number of iterations of the run. Not set in configs: the Runner passes it.
        by_epoch: Must be False, and must be set in configs, so that the Runner passes iterations.

    Raises:
        ValueError: ``by_epoch`` is True or a number is out of range.

    Example:
        >>> param_scheduler = [
        ...     dict(type='mmpaca.LinearWarmupLR', num_iters=1000, by_epoch=False),
        ...     dict(type='CosineAnnealingLR', by_epoch=False),
        ... ]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        *,
        end: int,
        num_iters: int = 1000,
        max_share: float = 0.1,
        start_factor: float = 0.001,
        by_epoch: bool = True,
        last_step: int = -1,
        verbose: bool = False,
    ) -> None:
        if by_epoch:
            raise ValueError('by_epoch=True: set by_epoch=False for LinearWarmupLR')
        if num_iters < 1 or not 0 < max_share <= 1:
            raise ValueError(f'{num_iters=} must be at least 1 and {max_share=} in (0, 1]')
        # LinearLR reaches the full learning rate at its second iteration at the earliest.
        steps = max(2, min(num_iters, round(max_share * end)))
        super().__init__(
            optimizer,
            start_factor=start_factor,
            end=steps,
            by_epoch=False,
            last_step=last_step,
            verbose=verbose,
        )
