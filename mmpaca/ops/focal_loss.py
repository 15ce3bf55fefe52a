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
        ValueError: a target is greater than C.
    """
    logits, positive = _prepare(input, target)
    log_p, log_q = F.logsigmoid(logits), F.logsigmoid(-logits)
    p, q = logits.sigmoid(), (-logits).sigmoid()
    loss = torch.where(positive, -alpha * q**gamma * log_p, (alpha - 1) * p**gamma * log_q)
    output.copy_(_reweight(loss, target, weight))


@without_autocast
def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Compute the derivative of each element of `sigmoid_focal_loss_forward` by its logit.

    ``grad_input`` (N, C) is overwritten; mmcv multiplies it by the incoming gradient itself.

    Raises:
        ValueError: a target is greater than C.
    """
    logits, positive = _prepare(input, target)
    log_p, log_q = F.logsigmoid(logits), F.logsigmoid(-logits)
    p, q = logits.sigmoid(), (-logits).sigmoid()
    at_positive = alpha * q**gamma * (gamma * p * log_p - q)
    at_negative = (1 - alpha) * p**gamma * (p - gamma * q * log_q)
    grad_input.copy_(_reweight(torch.where(positive, at_positive, at_negative), target, weight))


def _prepare(input: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Logits in the working precision and the mask of the target classes, both (N, C)."""
    num_classes = input.size(1)
    if target.numel() and target.max() > num_classes:
        raise ValueError(
            f'target {int(target.max())} is not a class in 0 .. {num_classes - 1} '
            f'or {num_classes} (background)'
        )
    classes = torch.arange(num_classes, device=target.device)
    return input.to(working_dtype(input)), target[:, None] == classes


def _reweight(values: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Multiply the rows (N, C) by the weight of their target class."""
    if weight.numel() == 0:
        return values
    known = (target >= 0) & (target < weight.numel())
    factor = weight.to(values)[target.clamp(0, weight.numel() - 1)]
    return values * torch.where(known, factor, 1)[:, None]
