"""Keep NaN and infinite gradients out of the weights."""

from typing import Any

import torch
from mmengine.dist import all_gather_object, all_reduce, get_world_size
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapperDict
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.optim import Optimizer

from mmpaca.checkpoint.saving import ATOMIC_BACKEND
from mmpaca.checkpoint.schema import nonfinite_tensors
from mmpaca.engine.wrappers import unwrapped
from mmpaca.registry import HOOKS


@HOOKS.register_module()
class CheckInvalidGradHook(Hook):
    """Skip optimizer steps with NaN or infinite gradients; stop after too many in a row.

    The gradients are checked right before the optimizer uses them: after accumulation, clipping
    and unscaling. All ranks skip the same steps. The running statistics of BatchNorm are restored
    as well. With ``--amp`` the loss scaler skips steps by itself while it searches a scale; these
    count only if the loss is not finite or the scale is 1 or less.

    Args:
        max_skips: Maximum number of consecutive skipped steps.
        enabled: Set False to switch the hook off.

    Raises:
        ValueError: ``max_skips`` is negative.
    """

    priority = 'HIGH'  # before the EMA copies running statistics

    def __init__(self, max_skips: int = 5, enabled: bool = True) -> None:
        if max_skips < 0:
            raise ValueError(f'max_skips={max_skips} must be >= 0')
        self.max_skips = max_skips
        self.enabled = enabled
        self.skipped = 0  # consecutive steps
        self._finite: bool | None = None  # None: no optimizer step in this iteration
        self._images: list[str] = []
        self._statistics: list[tuple[Tensor, Tensor]] = []  # buffer, its last good value

    def before_train(self, runner: Runner) -> None:
        """Check every optimizer step from now on.

        Raises:
            TypeError: There are several optimizers.
        """
        if not self.enabled:
            return
        if isinstance(runner.optim_wrapper, OptimWrapperDict):
            raise TypeError(
                f'CheckInvalidGradHook supports one optimizer, and optim_wrapper has '
                f'{len(runner.optim_wrapper)}: set '
                'default_hooks=dict(invalid_grad=dict(enabled=False))'
            )
        runner.optim_wrapper.optimizer.register_step_pre_hook(self._before_step)
        self._statistics = [
            (buffer, buffer.clone())
            for module in runner.model.modules()
            if isinstance(module, nn.modules.batchnorm._NormBase)
            for buffer in module.buffers(recurse=False)
        ]

    def _before_step(self, optimizer: Optimizer, args: tuple, kwargs: dict) -> None:
        # The loss scaler always calls step() of a fused optimizer, which then skips it itself.
        found_inf = getattr(optimizer, 'found_inf', None)
        if found_inf is not None and found_inf.item() > 0:
            return
        grads = [p.grad for g in optimizer.param_groups for p in g['params'] if p.grad is not None]
        # An overflowing norm is as bad as infinite gradients.
        self._finite = _on_no_rank(~torch.isfinite(torch.nn.utils.get_total_norm(grads)))
        if not self._finite:
            optimizer.zero_grad(set_to_none=True)  # the optimizer skips parameters without grad

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Collect the images of the step."""
        if self.enabled:
            self._images += image_names(data_batch)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Any = None,
    ) -> None:
        """Count skipped steps.

        Raises:
            FloatingPointError: More than ``max_skips`` consecutive steps were skipped; names the
                images.
        """
        if not self.enabled:
            return
        finite, self._finite = self._finite, None
        if finite is None:
            scaler = getattr(runner.optim_wrapper, 'loss_scaler', None)
            if scaler is None or not runner.optim_wrapper.should_update():
                return  # gradients are being accumulated
            finite = _on_no_rank(~torch.isfinite(outputs['loss'])) and scaler.get_scale() > 1
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
            f'{outputs["loss"].item():g}), images {", ".join(everywhere) or "unknown"}'
        )
        if self.skipped > self.max_skips:
            self._stop(runner, what, everywhere)
        runner.logger.warning(
            f'{what}: skipped optimizer step ({self.skipped} consecutive, limit {self.max_skips})'
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
        broken = nonfinite_tensors(unwrapped(runner.model).state_dict())
        weights = (
            f'the last finite weights are in {runner.work_dir}/{name}'
            if not broken
            else f'the weights are not finite either ({", ".join(broken[:5])}): resume from the '
            'checkpoint before'
        )
        raise FloatingPointError(
            f'{what}. {self.skipped} consecutive steps were skipped; {weights}. Check these images '
            'and their annotations, lower the learning rate, or clip gradients with '
            'optim_wrapper.clip_grad=dict(max_norm=...)'
        )


def image_names(data_batch: Any) -> list[str]:
    """Paths (or ids) of the images in a batch of mmdet or mmpretrain; empty if unknown."""
    samples = data_batch.get('data_samples', []) if isinstance(data_batch, dict) else []
    names = (getattr(sample, 'img_path', getattr(sample, 'img_id', None)) for sample in samples)
    return [str(name) for name in names if name is not None]


def _on_no_rank(condition: Tensor) -> bool:
    """True if the condition holds on no rank."""
    flag = condition.detach().to(torch.float32).reshape(1)
    if get_world_size() > 1:
        all_reduce(flag, 'max')
    return flag.item() == 0
