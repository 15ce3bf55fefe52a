"""Convolution at the pixels of a mask, through mmcv, against the plain convolution."""

import pytest
import torch
import torch.nn.functional as F
from mmcv.ops import MaskedConv2d


@pytest.mark.parametrize(('kernel', 'padding'), [(1, 0), (3, 1), ((3, 5), (1, 2))])
def test_equals_the_convolution_where_the_mask_is_set(kernel, padding):
    torch.manual_seed(0)
    conv = MaskedConv2d(3, 4, kernel, padding=padding).double()
    x = torch.randn(1, 3, 6, 7, dtype=torch.float64)
    mask = torch.rand(1, 6, 7) > 0.5
    expected = F.conv2d(x, conv.weight, conv.bias, padding=padding) * mask
    torch.testing.assert_close(conv(x, mask), expected)
    assert not conv(x, torch.zeros_like(mask)).any()
