"""Deformable convolution, plain and modulated, through mmcv, against loops."""

import pytest
import torch
from mmcv.ops import (
    DeformConv2dPack,
    ModulatedDeformConv2dPack,
    deform_conv2d,
    modulated_deform_conv2d,
)


def deform_conv_loop(bilinear, x, offset, weight, mask, bias, geometry):
    stride, padding, dilation, groups, deform_groups = geometry
    batch, channels = x.shape[:2]
    c_out, c_group, kh, kw = weight.shape
    out = torch.zeros(batch, c_out, *offset.shape[2:], dtype=x.dtype)
    per_group = c_out // groups
    for n, o, i, j in torch.cartesian_prod(*(torch.arange(s) for s in out.shape)).tolist():
        total = 0.0 if bias is None else bias[o].item()
        for ci in range(c_group):
            c = (o // per_group) * c_group + ci
            g = c // (channels // deform_groups)
            for a in range(kh):
                for b in range(kw):
                    k = g * kh * kw + a * kw + b
                    y = i * stride[0] - padding[0] + a * dilation[0] + offset[n, 2 * k, i, j]
                    x_ = j * stride[1] - padding[1] + b * dilation[1] + offset[n, 2 * k + 1, i, j]
                    value = weight[o, ci, a, b].item() * bilinear(x[n, c], y.item(), x_.item())
                    total += value * (1.0 if mask is None else mask[n, k, i, j].item())
        out[n, o, i, j] = total
    return out


# stride, padding, dilation, groups, deform_groups: (y, x) differ, so that a swap shows
GEOMETRIES = [
    ((1, 1), (0, 0), (1, 1), 1, 1),
    ((2, 1), (1, 2), (1, 2), 1, 1),
    ((1, 2), (2, 1), (2, 1), 2, 1),
    ((1, 1), (1, 0), (1, 1), 1, 2),
    ((1, 2), (0, 1), (1, 1), 2, 4),
]


def operands(geometry, batch=2, size=(5, 6), c_out=4, kernel=(3, 2), dtype=torch.float64):
    stride, padding, dilation, groups, deform_groups = geometry
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    out = [
        (size[d] + 2 * padding[d] - dilation[d] * (kernel[d] - 1) - 1) // stride[d] + 1
        for d in (0, 1)
    ]
    points = deform_groups * kernel[0] * kernel[1]
    x, offset = normal(batch, 4, *size), 1.5 * normal(batch, 2 * points, *out)
    mask, weight = normal(batch, points, *out).sigmoid(), normal(c_out, 4 // groups, *kernel)
    return x, offset, mask, weight, normal(c_out)


@pytest.mark.parametrize('geometry', GEOMETRIES)
def test_deform_conv_equals_loop(bilinear, geometry):
    x, offset, _, weight, _ = operands(geometry)
    expected = deform_conv_loop(bilinear, x, offset, weight, None, None, geometry)
    torch.testing.assert_close(deform_conv2d(x, offset, weight, *geometry), expected)


@pytest.mark.parametrize('with_bias', [True, False])
@pytest.mark.parametrize('geometry', GEOMETRIES)
def test_modulated_deform_conv_equals_loop(bilinear, geometry, with_bias):
    x, offset, mask, weight, bias = operands(geometry)
    bias = bias if with_bias else None
    expected = deform_conv_loop(bilinear, x, offset, weight, mask, bias, geometry)
    out = modulated_deform_conv2d(x, offset, mask, weight, bias, *geometry)
    torch.testing.assert_close(out, expected)


def test_zero_offsets_are_a_convolution():
    for geometry in GEOMETRIES:
        x, offset, mask, weight, bias = operands(geometry)
        zero = torch.zeros_like(offset)
        expected = torch.nn.functional.conv2d(x, weight, None, *geometry[:4])
        torch.testing.assert_close(deform_conv2d(x, zero, weight, *geometry), expected)
        half = torch.full_like(mask, 0.5)
        out = modulated_deform_conv2d(x, zero, half, weight, bias, *geometry)
        torch.testing.assert_close(out, 0.5 * expected + bias[:, None, None])


def test_offset_is_y_then_x():
    x = torch.arange(20.0).view(1, 1, 4, 5)
    weight, offset = torch.ones(1, 1, 1, 1), torch.zeros(1, 2, 4, 5)
    offset[:, 0] = 1  # one row down
    out = deform_conv2d(x, offset, weight)
    assert torch.equal(out[0, 0, :3], x[0, 0, 1:]) and out[0, 0, 3].eq(0).all()


def small(geometry, **kwargs):
    tensors = operands(geometry, size=(3, 3), c_out=2, kernel=(2, 2), **kwargs)
    return [t.requires_grad_() for t in tensors]


@pytest.mark.parametrize('geometry', GEOMETRIES)
def test_deform_conv_gradcheck(geometry):
    x, offset, _, weight, _ = small(geometry)

    def convolve(*tensors):
        return deform_conv2d(*tensors, *geometry)

    assert torch.autograd.gradcheck(convolve, (x, offset, weight))


@pytest.mark.parametrize('with_bias', [True, False])
@pytest.mark.parametrize('geometry', GEOMETRIES)
def test_modulated_deform_conv_gradcheck(geometry, with_bias):
    tensors = small(geometry)[: 5 if with_bias else 4]

    def convolve(*tensors):
        bias = tensors[4] if with_bias else None
        return modulated_deform_conv2d(*tensors[:4], bias, *geometry)

    assert torch.autograd.gradcheck(convolve, tuple(tensors))


def test_parameter_gradient_is_scaled_and_added():
    from mmpaca.ops.deform_conv import deform_conv_backward_parameters

    geometry = GEOMETRIES[0]
    x, offset, _, weight, _ = operands(geometry)
    weight.requires_grad_()
    out = deform_conv2d(x, offset, weight, *geometry)
    grad = torch.ones_like(out)
    (expected,) = torch.autograd.grad(out, weight, grad)
    total = torch.ones_like(weight)
    empty, sizes = x.new_empty(0), (2, 3, 1, 1, 0, 0, 1, 1, 1, 1)
    deform_conv_backward_parameters(
        x, offset, grad, total, empty, empty, *sizes, scale=0.5, im2col_step=1
    )
    torch.testing.assert_close(total, 1 + 0.5 * expected)


@pytest.mark.parametrize('step', [1, 2, 32])
def test_im2col_step_changes_nothing(step):
    geometry = GEOMETRIES[1]
    x, offset, _, weight, _ = operands(geometry, batch=4)
    expected = torch.cat(
        [deform_conv2d(x[i : i + 1], offset[i : i + 1], weight, *geometry) for i in range(4)]
    )
    out = deform_conv2d(x, offset, weight, *geometry, False, step)
    torch.testing.assert_close(out, expected)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_is_float32_rounded(dtype):
    geometry = GEOMETRIES[3]
    halves = [t.requires_grad_() for t in operands(geometry, dtype=dtype)]
    exact = [t.detach().float().requires_grad_() for t in halves]
    out = modulated_deform_conv2d(*halves, *geometry)
    expected = modulated_deform_conv2d(*exact, *geometry)
    assert out.dtype == dtype and torch.equal(out, expected.to(dtype))
    out.sum().backward()
    expected.sum().backward()
    for half, full in zip(halves, exact, strict=True):
        assert torch.equal(half.grad, full.grad.to(dtype))


@pytest.mark.parametrize('layer', [DeformConv2dPack, ModulatedDeformConv2dPack])
def test_modules_under_autocast(layer):
    torch.manual_seed(0)
    module = layer(4, 6, 3, padding=1, deform_groups=2)
    torch.nn.init.normal_(module.conv_offset.weight, std=0.1)
    x = torch.randn(2, 4, 8, 8, requires_grad=True)
    expected = module(x)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        out = module(x)
        out.float().square().mean().backward()
    assert out.dtype == torch.bfloat16
    assert (out.float() - expected).abs().mean() < 0.02 * expected.abs().mean() + 0.01
    assert x.grad.abs().sum() > 0
    for name, parameter in module.named_parameters():
        assert parameter.grad.isfinite().all() and parameter.grad.abs().sum() > 0, name


def test_larger_offsets_are_read_as_mmcvs_kernel_reads_them():
    """DyHead passes the offsets of a finer level: the beginning of their memory counts."""
    geometry = ((1, 1), (1, 1), (1, 1), 1, 1)
    x, offset, mask, weight, bias = operands(geometry, kernel=(3, 3))

    def enlarged(maps):
        """Maps of twice the height with the values of ``maps`` first in memory, then others."""
        flat = torch.cat([maps.flatten(1), torch.ones_like(maps).flatten(1)], 1)
        return flat.view(*maps.shape[:2], 2 * maps.shape[2], maps.shape[3]).requires_grad_()

    offset, mask = offset.requires_grad_(), mask.requires_grad_()
    out = modulated_deform_conv2d(x, offset, mask, weight, bias, *geometry)
    larger = enlarged(offset.detach()), enlarged(mask.detach())
    again = modulated_deform_conv2d(x, *larger, weight, bias, *geometry)
    assert torch.equal(again, out)
    grad_out = torch.randn(out.shape, dtype=out.dtype)
    expected = torch.autograd.grad(out, (offset, mask), grad_out)
    for grad, small in zip(torch.autograd.grad(again, larger, grad_out), expected, strict=True):
        flat, count = grad.flatten(1), small[0].numel()
        assert torch.equal(flat[:, :count], small.flatten(1)) and not flat[:, count:].any()
