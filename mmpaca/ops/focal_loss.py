"""Sigmoid focal loss, RetinaNet (arXiv:1708.02002), eq. 5. Serves mmcv/ops/focal_loss.py.

mmcv's kernel computes log(max(p, FLT_MIN)) of a rounded sigmoid, which saturates at a loss of 87
for logits above about 17 in float32. Here log-sigmoid is computed from the logit itself: the loss
is exact for any logit and equals mmcv's below saturation.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .precision import without_autocast, working_dtype


@without_autocast
def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Compute the loss of each logit.

    Args:
        input: (N, C) logits.
        target: (N,) int64, class in 0 .. C-1; C means background.
        weight: (C,) weight per class, or empty for no weights. Background has weight 1 (mmcv reads
            past the end of the tensor).
        output: (N, C), overwritten.
        gamma: exponent of the modulating factor.
        alpha: weight of the positive class; 1 - alpha for the others.

    Raises:
        ValueError: a target is greater than C (on CPUs; on CUDA the check would wait for the device).
    """
    margin, factor = _prepare(input, target, weight, alpha)
    loss = F.logsigmoid(margin).neg_()
    loss *= margin.neg_().sigmoid_().pow_(gamma)
    output.copy_(loss.mul_(factor))


@without_autocast
def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Compute the derivative of each element of `sigmoid_focal_loss_forward` by its logit.

    ``grad_input`` (N, C) is overwritten; mmcv multiplies it by the incoming gradient itself.

    Raises:
        ValueError: a target is greater than C (on CPUs; on CUDA the check would wait for the device).
    """
    margin, factor = _prepare(input, target, weight, alpha)
    log_p = F.logsigmoid(margin)
    p = margin.sigmoid()
    q = margin.neg_().sigmoid_()
    grad = log_p.mul_(p).mul_(gamma).sub_(q)  # d loss / d margin over q ** gamma
    grad *= q.pow_(gamma)
    grad *= factor
    sign = _positive(input, target).to(grad.dtype).mul_(2).sub_(1)
    grad_input.copy_(grad.mul_(sign))


def _positive(input: Tensor, target: Tensor) -> Tensor:
    """Mask of the target classes, (N, C)."""
    return target[:, None] == torch.arange(input.size(1), device=target.device)


def _prepare(input: Tensor, target: Tensor, weight: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """Compute margins and factors of the loss.

    With the margin z, the logit of the target class and minus that of the others, both cases of the
    loss are factor * sigmoid(-z) ** gamma * -logsigmoid(z). RetinaNet has 200 M logits a batch: all
    maps of this size are changed in place.

    Returns:
        Margins in the working precision, and alpha or 1 - alpha times the weight of the row's target
        class, both (N, C).
    """
    # On CUDA the check would wait for the device, for each level, twice.
    if not target.is_cuda and target.numel() and target.max() > input.size(1):
        raise ValueError(
            f'target {int(target.max())} is not a class in 0 .. {input.size(1) - 1} '
            f'or {input.size(1)} (background)'
        )
    dtype = working_dtype(input)
    positive = _positive(input, target)
    logits = input.to(dtype)
    margin = torch.where(positive, logits, -logits)
    factor = positive.to(dtype).mul_(2 * alpha - 1).add_(1 - alpha)
    if weight.numel():
        known = (target >= 0) & (target < weight.numel())
        of_class = weight.to(factor)[target.clamp(0, weight.numel() - 1)]
        factor *= torch.where(known, of_class, 1)[:, None]
    return margin, factor
