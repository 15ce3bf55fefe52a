"""Cross-entropy with class weights and ignored pixels."""

import pytest
import torch
import torch.nn.functional as F

from mmpaca.models import SegCrossEntropyLoss


@pytest.mark.parametrize('weights', [None, [1.0, 2.0, 0.5]])
def test_it_is_the_mean_over_labelled_pixels(weights):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, 5, generator=generator, requires_grad=True)
    label = torch.randint(0, 3, (2, 4, 5), generator=generator)
    label[:, 0] = 255
    expected = F.cross_entropy(
        logits, label, None if weights is None else torch.tensor(weights), ignore_index=255
    )
    loss = SegCrossEntropyLoss(weights, loss_weight=0.4)(logits, label)
    torch.testing.assert_close(loss, 0.4 * expected)
    half = SegCrossEntropyLoss(weights)(logits, label, weight=torch.full((2, 4, 5), 0.5))
    torch.testing.assert_close(half, 0.5 * expected)


def test_no_labelled_pixels():
    logits = torch.randn(1, 3, 2, 2, requires_grad=True)
    loss = SegCrossEntropyLoss([1.0, 1.0, 1.0])(logits, torch.full((1, 2, 2), 255))
    loss.backward()
    assert loss.item() == 0 and logits.grad.abs().max() == 0
