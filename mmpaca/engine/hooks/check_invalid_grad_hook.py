"""Numbers that are not finite never reach the weights."""

from typing import Any

import torch
from mmengine.dist import all_gather_object, all_reduce, get_world_size
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapperDict
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.optim import Optimizer

from mmpaca.checkpoint.saving import ATOMIC_BACKEND
from mmpaca.registry import HOOKS


@HOOKS.register_module()
class CheckInvalidGradHook(Hook):
    """Leave out optimizer steps with NaN or infinite gradients; after too many in a row, stop.

    The gradients are looked at when the optimizer is about to use them: after accumulation,
    clipping and unscaling, whatever the wrapper of the one optimizer. All ranks leave out the
    same steps. Then running statistics (of BatchNorm) are put back, too. With ``--amp`` the loss
    scaler leaves out steps by itself while it looks for a scale; those count only if the loss is
    not finite, or at a scale of 1 and below.

    Args:
        max_skips: steps that may be left out in a row.

    Raises:
        ValueError: ``max_skips`` is negative.
    """

    priority = 'HIGH'  # before the EMA copies running statistics

    def __init__(self, max_skips: int = 5) -> None:
        if max_skips < 0:
            raise ValueError(f'max_skips={max_skips} must be >= 0')
        self.max_skips = max_skips
        self.skipped = 0  # in a row
        self._finite: bool | None = None  # of the step; None while there was none
        self._images: list[str] = []
        self._statistics: list[tuple[Tensor, Tensor]] = []  # buffer, its last good value

    def before_train(self, runner: Runner) -> None:
        """Have every step looked at.

        Raises:
            TypeError: there are several optimizers.
        """
        if isinstance(runner.optim_wrapper, OptimWrapperDict):
            raise TypeError(
                f'CheckInvalidGradHook looks after one optimizer, and optim_wrapper has '
                f'{len(runner.optim_wrapper)}: take it out of custom_hooks'
            )
        runner.optim_wrapper.optimizer.register_step_pre_hook(self._before_step)
        self._statistics = [
            (buffer, buffer.clone())
            for module in runner.model.modules()
            if isinstance(module, nn.modules.batchnorm._NormBase)
            for buffer in module.buffers(recurse=False)
        ]

    def _before_step(self, optimizer: Optimizer, args: tuple, kwargs: dict) -> None:
        # The loss scaler always calls the step of a fused optimizer, which leaves itself out.
        found_inf = getattr(optimizer, 'found_inf', None)
        if found_inf is not None and found_inf.item() > 0:
            return
        grads = [p.grad for g in optimizer.param_groups for p in g['params'] if p.grad is not None]
        # A norm that overflows is no better than one of infinite numbers.
        self._finite = _nowhere(~torch.isfinite(torch.nn.utils.get_total_norm(grads)))
        if not self._finite:
            optimizer.zero_grad(set_to_none=True)  # parameters without gradient stay as they are

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Remember which images take part in the step."""
        self._images += image_names(data_batch)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Any = None,
    ) -> None:
        """Count what was left out.

        Raises:
            FloatingPointError: more than ``max_skips`` steps in a row; names the images.
        """
        finite, self._finite = self._finite, None
        if finite is None:
            scaler = getattr(runner.optim_wrapper, 'loss_scaler', None)
            if scaler is None or not runner.optim_wrapper.should_update():
                return  # gradients are being accumulated
            finite = _nowhere(~torch.isfinite(outputs['loss'])) and scaler.get_scale() > 1
        images, self._images = self._images, []
        if finite:
            self.skipped = 0
            for buffer, good in self._statistics:
                good.copy_(buffer)
            return
        for buffer, good in self._statistics:
            buffer.copy_(good)
        self.skipped += 1
        everywhere = [name for names in all_gather_object(images) for name in names]
        what = (
            f'NaN or infinite gradients at iteration {runner.iter + 1} (loss here: '
            f'{float(outputs["loss"]):g}), images {", ".join(everywhere) or "unknown"}'
        )
        if self.skipped > self.max_skips:
            self._stop(runner, what, everywhere)
        runner.logger.warning(
            f'{what}: step left out, the {self.skipped}. in a row of at most {self.max_skips}'
        )

    def _stop(self, runner: Runner, what: str, images: list[str]) -> None:
        name = f'nonfinite_iter_{runner.iter + 1}.pth'
        runner.call_hook('before_checkpoint')
        runner.save_checkpoint(
            runner.work_dir,
            name,
            meta=dict(nonfinite_images=images),
            by_epoch=False,
            backend_args=dict(backend=ATOMIC_BACKEND),
        )
        raise FloatingPointError(
            f'{what}. This was the {self.skipped}. step in a row; the last weights that were '
            f'finite are in {runner.work_dir}/{name}. Look at these images and their annotations, '
            'lower the learning rate, or clip gradients with '
            'optim_wrapper.clip_grad=dict(max_norm=...)'
        )


def image_names(data_batch: Any) -> list[str]:
    """Files (or ids) of the images in a batch of mmdet or mmpretrain; empty where unknown."""
    samples = data_batch.get('data_samples', []) if isinstance(data_batch, dict) else []
    names = (getattr(sample, 'img_path', getattr(sample, 'img_id', None)) for sample in samples)
    return [str(name) for name in names if name is not None]


def _nowhere(condition: Tensor) -> bool:
    """Whether a condition holds on no rank."""
    flag = condition.detach().to(torch.float32).reshape(1)
    if get_world_size() > 1:
        all_reduce(flag, 'max')
    return flag.item() == 0
