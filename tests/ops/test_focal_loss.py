"""Sigmoid focal loss through mmcv's function, against the formula in scalar arithmetic."""

import math

import pytest
import torch
from mmcv.ops import SigmoidFocalLoss, sigmoid_focal_loss, softmax_focal_loss


def focal_loop(logits, target, gamma, alpha, weight=None):
    out = torch.zeros_like(logits)
    for n, label in enumerate(target.tolist()):
        for c in range(logits.size(1)):
            p = 1 / (1 + math.exp(-logits[n, c].item()))
            if label == c:
                loss = -alpha * (1 - p) ** gamma * math.log(p)
            else:
                loss = -(1 - alpha) * p**gamma * math.log(1 - p)
            if weight is not None and label < logits.size(1):
                loss *= weight[label].item()
            out[n, c] = loss
    return out


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(8, 5, generator=generator, dtype=torch.float64) * 3
    return logits, torch.tensor([0, 1, 2, 3, 4, 5, 5, 2])  # 5 is background


WEIGHT = torch.tensor([0.5, 1.0, 2.0, 0.0, 3.0], dtype=torch.float64)


@pytest.mark.parametrize('gamma', [0.0, 1.0, 2.0, 1.5])
@pytest.mark.parametrize('weight', [None, WEIGHT])
def test_equals_formula(batch, gamma, weight):
    expected = focal_loop(*batch, gamma, 0.25, weight)
    out = sigmoid_focal_loss(*batch, gamma, 0.25, weight, 'none')
    torch.testing.assert_close(out, expected, rtol=1e-9, atol=1e-12)
    for reduction, value in (('sum', expected.sum()), ('mean', expected.sum() / 8)):
        out = SigmoidFocalLoss(gamma, 0.25, weight, reduction)(*batch)
        torch.testing.assert_close(out, value, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize('gamma', [0.0, 2.0, 1.5])
@pytest.mark.parametrize('weight', [None, WEIGHT])
@pytest.mark.parametrize('reduction', ['sum', 'mean', 'none'])
def test_gradcheck(batch, gamma, weight, reduction):
    logits, target = batch
    logits.requires_grad_()

    def loss(x):
        return sigmoid_focal_loss(x, target, gamma, 0.25, weight, reduction)

    assert torch.autograd.gradcheck(loss, (logits,))


def test_by_hand():
    logits = torch.zeros(2, 1)
    out = sigmoid_focal_loss(logits, torch.tensor([0, 1]), 2.0, 0.25, None, 'none')
    expected = torch.tensor([[0.25 * 0.25 * math.log(2)], [0.75 * 0.25 * math.log(2)]])
    torch.testing.assert_close(out, expected)


@pytest.mark.parametrize('size', [20.0, 100.0, 1e4])
def test_large_logits(size):
    logits = torch.tensor([[size], [-size], [size], [-size]], requires_grad=True)
    target = torch.tensor([0, 0, 1, 1])
    out = sigmoid_focal_loss(logits, target, 2.0, 0.25, None, 'none')
    # wrong by a wide margin: alpha * |x| for a missed object, (1 - alpha) * |x| for a false alarm
    expected = torch.tensor([[0.0], [0.25 * size], [0.75 * size], [0.0]])
    torch.testing.assert_close(out, expected)
    out.sum().backward()
    torch.testing.assert_close(
        logits.grad, torch.tensor([[0.0], [-0.25], [0.75], [0.0]]), rtol=1e-6, atol=1e-6
    )


def test_equals_the_python_loss_of_mmdet(batch):
    """mmdet takes its own loss on the CPU and mmcv's on CUDA: the same numbers."""
    from mmdet.models.losses.focal_loss import py_sigmoid_focal_loss

    logits, target = batch
    one_hot = torch.nn.functional.one_hot(target, 6)[:, :5].double()
    ours, theirs = (logits.clone().requires_grad_() for _ in range(2))
    loss = sigmoid_focal_loss(ours, target, 2.0, 0.25, None, 'none')
    expected = py_sigmoid_focal_loss(theirs, one_hot, reduction='none')
    torch.testing.assert_close(loss, expected)
    loss.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_is_float32_rounded(batch, dtype):
    logits, target = batch
    x = logits.to(dtype).requires_grad_()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        out = sigmoid_focal_loss(x, target, 2.0, 0.25, WEIGHT.to(dtype), 'none')
    assert out.dtype == dtype
    exact = focal_loop(x.detach().double(), target, 2.0, 0.25, WEIGHT)
    torch.testing.assert_close(out, exact.to(dtype), rtol=torch.finfo(dtype).eps, atol=1e-7)
    out.sum().backward()
    assert x.grad.dtype == dtype and x.grad.isfinite().all()


def test_no_samples_and_bad_target():
    x = torch.zeros(0, 4, requires_grad=True)
    out = sigmoid_focal_loss(x, torch.zeros(0, dtype=torch.long), 2.0, 0.25, None, 'sum')
    out.backward()
    assert out.item() == 0 and x.grad.shape == (0, 4)
    with pytest.raises(ValueError, match=r'target 6 is not a class in 0 \.\. 3 or 4'):
        sigmoid_focal_loss(torch.zeros(1, 4), torch.tensor([6]))


def test_softmax_focal_loss_is_not_served():
    with pytest.raises(NotImplementedError, match="'softmax_focal_loss_forward'"):
        softmax_focal_loss(torch.zeros(1, 4), torch.tensor([1]))
