"""Multi-scale deformable attention: the path that mmcv takes on CUDA, run on the CPU."""

import pytest
import torch
from mmcv.ops.multi_scale_deform_attn import (
    MultiScaleDeformableAttention,
    MultiScaleDeformableAttnFunction,
)

SHAPES = torch.tensor([[3, 4], [2, 3]])  # (height, width) of the levels
STARTS = torch.tensor([0, 12])


def attention_loop(bilinear, value, locations, weights):
    batch, queries, heads, levels, points, _ = locations.shape
    channels = value.size(3)
    out = torch.zeros(batch, queries, heads * channels, dtype=value.dtype)
    for n in range(batch):
        for q in range(queries):
            for h in range(heads):
                for c in range(channels):
                    for level, (height, width) in enumerate(SHAPES.tolist()):
                        start = STARTS[level].item()
                        image = value[n, start : start + height * width, h, c]
                        for p in range(points):
                            x, y = locations[n, q, h, level, p].tolist()
                            sample = bilinear(
                                image.view(height, width), y * height - 0.5, x * width - 0.5
                            )
                            share = weights[n, q, h, level, p].item()
                            out[n, q, h * channels + c] += share * sample
    return out


@pytest.fixture
def operands():
    generator = torch.Generator().manual_seed(0)
    value = torch.randn(2, 18, 2, 3, generator=generator, dtype=torch.float64)
    locations = torch.rand(2, 4, 2, 2, 3, 2, generator=generator, dtype=torch.float64)
    locations = locations * 1.4 - 0.2  # some outside
    weights = torch.rand(2, 4, 2, 2, 3, generator=generator, dtype=torch.float64)
    return value, locations, weights


def attend(value, locations, weights):
    return MultiScaleDeformableAttnFunction.apply(value, SHAPES, STARTS, locations, weights, 64)


def test_equals_loop(bilinear, operands):
    torch.testing.assert_close(attend(*operands), attention_loop(bilinear, *operands))


def test_gradcheck(operands):
    assert torch.autograd.gradcheck(attend, tuple(t.requires_grad_() for t in operands))


@pytest.mark.parametrize('autocast', [False, True])
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_is_float32_rounded(operands, dtype, autocast):
    halves = [t.to(dtype).requires_grad_() for t in operands]
    exact = [t.detach().float().requires_grad_() for t in halves]
    with torch.autocast('cpu', dtype=torch.bfloat16, enabled=autocast):
        out = attend(*halves)
    expected = attend(*exact)
    assert out.dtype == dtype and torch.equal(out, expected.to(dtype))
    out.sum().backward()
    expected.sum().backward()
    for half, full in zip(halves, exact, strict=True):
        assert torch.equal(half.grad, full.grad.to(dtype))


def test_value_of_higher_precision_than_locations(operands):
    """mmcv casts locations and weights to the dtype of the value; gradients come back in it."""
    value, locations, weights = operands
    out = attend(value.float(), locations, weights)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out.double(), attend(*operands), rtol=1e-4, atol=1e-5)


def test_module(operands):
    """The module on the CPU and the function agree."""
    torch.manual_seed(0)
    module = MultiScaleDeformableAttention(8, num_heads=2, num_levels=2, num_points=3)
    seen = {}

    def record(name):
        def hook(_, __, output):
            seen[name] = output

        return hook

    module.value_proj.register_forward_hook(record('value'))
    module.output_proj.register_forward_pre_hook(lambda _, inputs: seen.update(mixed=inputs[0]))
    for name in ('sampling_offsets', 'attention_weights'):
        getattr(module, name).register_forward_hook(record(name))
    query, value = torch.randn(4, 2, 8), torch.randn(18, 2, 8)
    points = torch.rand(2, 4, 2, 2)
    module.eval()(
        query,
        value=value,
        reference_points=points,
        spatial_shapes=SHAPES,
        level_start_index=STARTS,
    )
    scale = SHAPES.flip(1)[None, None, None, :, None]
    locations = (
        points[:, :, None, :, None] + seen['sampling_offsets'].view(2, 4, 2, 2, 3, 2) / scale
    )
    weights = seen['attention_weights'].view(2, 4, 2, 6).softmax(-1).view(2, 4, 2, 2, 3)
    torch.testing.assert_close(
        attend(seen['value'].view(2, 18, 2, 4), locations, weights), seen['mixed']
    )
