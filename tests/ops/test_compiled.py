"""Where mmcv is compiled: its operators and ours compute the same."""

from collections.abc import Callable
from importlib import import_module

import pytest
import torch

from mmpaca.plugin.operators import TorchvisionExt


@pytest.fixture
def both(monkeypatch):
    """Called with the name of an operator and a function of it: the result of mmcv's, and of ours."""

    def call(name: str, use: Callable[[Callable], object]) -> tuple[object, object]:
        module = import_module(f'mmcv.ops.{name}')
        operator = getattr(module, name)
        theirs = use(operator)
        with monkeypatch.context() as patch:
            patch.setattr(module, 'ext_module', TorchvisionExt('mmcv._ext'))
            return theirs, use(operator)

    return call


def boxes(count: int) -> torch.Tensor:
    """Boxes of 4 to 24 pixels in an image of 64."""
    corners = 40 * torch.rand(count, 2)
    return torch.cat([corners, corners + 4 + 20 * torch.rand(count, 2)], 1)


@pytest.mark.parametrize('aligned', [False, True])
@pytest.mark.parametrize('sampling_ratio', [0, 2])
def test_roi_align_to_the_last_bit(both, aligned, sampling_ratio):
    torch.manual_seed(0)
    features = torch.rand(2, 3, 32, 32, requires_grad=True)
    rois = torch.cat([torch.randint(0, 2, (20, 1)).float(), boxes(20)], 1)
    weights = torch.rand(20, 3, 7, 7)

    def use(roi_align: Callable) -> tuple[torch.Tensor, torch.Tensor]:
        out = roi_align(features, rois, (7, 7), 0.5, sampling_ratio, 'avg', aligned)
        return out, torch.autograd.grad((out * weights).sum(), features)[0]

    (out, gradient), (our_out, our_gradient) = both('roi_align', use)
    assert torch.equal(out, our_out)
    torch.testing.assert_close(gradient, our_gradient, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize('iou_threshold', [0.3, 0.7])
def test_nms_keeps_the_same(both, iou_threshold):
    torch.manual_seed(1)
    given = boxes(200), torch.rand(200), iou_threshold
    (_, theirs), (_, ours) = both('nms', lambda nms: nms(*given))
    assert torch.equal(theirs, ours) and 10 < len(ours) < 200
