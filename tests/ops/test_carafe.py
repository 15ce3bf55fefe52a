"""Content-aware upsampling through mmcv, against loops."""

import pytest
import torch
from mmcv.ops.carafe import carafe, carafe_naive


def operands(kernel, groups, scale):
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 4, 3, 5, generator=generator, dtype=torch.float64)
    shape = (2, groups * kernel**2, 3 * scale, 5 * scale)
    return features, torch.randn(shape, generator=generator, dtype=torch.float64)


def carafe_loop(features, masks, kernel, groups, scale):
    batch, channels, height, width = features.shape
    out = torch.zeros(batch, channels, height * scale, width * scale, dtype=features.dtype)
    for c, i, j in torch.cartesian_prod(*(torch.arange(s) for s in out.shape[1:])).tolist():
        group = c // (channels // groups)
        for a in range(kernel):
            for b in range(kernel):
                y, x = i // scale + a - kernel // 2, j // scale + b - kernel // 2
                if 0 <= y < height and 0 <= x < width:
                    weight = masks[:, (group * kernel + a) * kernel + b, i, j]
                    out[:, c, i, j] += weight * features[:, c, y, x]
    return out


@pytest.mark.parametrize('operator', [carafe, carafe_naive])
@pytest.mark.parametrize(('kernel', 'groups', 'scale'), [(3, 1, 2), (5, 2, 1), (3, 4, 3)])
def test_forward(operator, kernel, groups, scale):
    given = operands(kernel, groups, scale)
    expected = carafe_loop(*given, kernel, groups, scale)
    torch.testing.assert_close(operator(*given, kernel, groups, scale), expected)


def test_gradients():
    given = [tensor.requires_grad_() for tensor in operands(3, 2, 2)]
    assert torch.autograd.gradcheck(lambda *x: carafe(*x, 3, 2, 2), given)


def test_half_precision_accumulates_in_float32():
    features, masks = operands(5, 1, 2)
    out = carafe(features.half(), masks.half(), 5, 1, 2)
    expected = carafe_loop(features.half().double(), masks.half().double(), 5, 1, 2)
    assert out.dtype == torch.float16
    torch.testing.assert_close(out.double(), expected, rtol=1e-3, atol=1e-3)
