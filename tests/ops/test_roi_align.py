"""RoIAlign through mmcv's function, against bilinear sampling written as loops."""

import math

import pytest
import torch
from mmcv.ops import RoIAlign, roi_align


def roi_align_loop(x, rois, size, scale, sampling_ratio, aligned):
    """Average of samples per bin; a sample further than one pixel outside counts as 0."""
    _, channels, height, width = x.shape
    out = torch.zeros(len(rois), channels, *size, dtype=x.dtype)
    shift = 0.5 if aligned else 0.0

    def sample(image, c, y, x_):
        if y < -1 or y > height or x_ < -1 or x_ > width:
            return 0.0
        y, x_ = min(max(y, 0), height - 1), min(max(x_, 0), width - 1)
        y0, x0 = int(y), int(x_)
        y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
        dy, dx = y - y0, x_ - x0
        top = (1 - dx) * x[image, c, y0, x0] + dx * x[image, c, y0, x1]
        bottom = (1 - dx) * x[image, c, y1, x0] + dx * x[image, c, y1, x1]
        return (1 - dy) * top + dy * bottom

    for k, (image, *box) in enumerate(rois.tolist()):
        x1, y1, x2, y2 = (v * scale - shift for v in box)
        w, h = x2 - x1, y2 - y1
        if not aligned:
            w, h = max(w, 1.0), max(h, 1.0)
        bin_h, bin_w = h / size[0], w / size[1]
        rows = sampling_ratio or math.ceil(bin_h)
        columns = sampling_ratio or math.ceil(bin_w)
        for c in range(channels):
            for i in range(size[0]):
                for j in range(size[1]):
                    total = 0.0
                    for a in range(rows):
                        for b in range(columns):
                            y = y1 + (i + (a + 0.5) / rows) * bin_h
                            x_ = x1 + (j + (b + 0.5) / columns) * bin_w
                            total += sample(int(image), c, y, x_)
                    out[k, c, i, j] = total / max(rows * columns, 1)
    return out


@pytest.fixture
def maps():
    return torch.rand(2, 3, 7, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


ROIS = torch.tensor(
    [
        [0, 1.3, 2.1, 11.7, 9.2],
        [1, 0, 0, 17.9, 13.9],
        [0, -6, -5, 5, 4.5],  # partly outside
        [1, 12, 10, 40, 30],
        [1, 6, 6, 6, 6],  # no area
        [0, 100, 100, 120, 120],  # outside
        [1, 3, 3, 3.5, 9],
    ],
    dtype=torch.float64,
)


@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('sampling_ratio', [0, 1, 2])
@pytest.mark.parametrize('size', [(2, 3), (1, 1)])
def test_equals_loop(maps, aligned, sampling_ratio, size):
    expected = roi_align_loop(maps, ROIS, size, 0.5, sampling_ratio, aligned)
    out = roi_align(maps, ROIS, size, 0.5, sampling_ratio, 'avg', aligned)
    torch.testing.assert_close(out, expected, rtol=1e-9, atol=1e-12)
    assert expected[5].eq(0).all() and expected[1].gt(0).all()


def test_by_hand():
    """On a linear ramp, the mean over a bin is the value at its centre."""
    ramp = torch.arange(8.0).repeat(8, 1)[None, None]  # value x at pixel index x
    roi = torch.tensor([[0, 2.0, 2, 6, 6]])
    aligned = roi_align(ramp, roi, 2, 1.0, 2, 'avg', True)
    legacy = roi_align(ramp, roi, 2, 1.0, 2, 'avg', False)
    torch.testing.assert_close(aligned, torch.tensor([[[[2.5, 4.5], [2.5, 4.5]]]]))
    torch.testing.assert_close(legacy, torch.tensor([[[[3.0, 5.0], [3.0, 5.0]]]]))


@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('sampling_ratio', [0, 2])
def test_gradcheck(maps, aligned, sampling_ratio):
    maps.requires_grad_()

    def pool(x):
        return roi_align(x, ROIS, (2, 2), 0.5, sampling_ratio, 'avg', aligned)

    assert torch.autograd.gradcheck(pool, (maps,))


def test_the_deterministic_gradient_is_the_same(maps):
    """What deterministic mode calls on CUDA; on CPUs torchvision runs its usual kernel in it."""
    from mmpaca.ops.roi_align import deterministic_gradient, roi_align_backward

    grad, empty = torch.rand(len(ROIS), 3, 2, 3, dtype=torch.float64), torch.zeros(0)
    usual = torch.zeros_like(maps)
    roi_align_backward(grad, ROIS, empty, empty, usual, 2, 3, 0.5, 2, 1, True)
    found = deterministic_gradient(grad, ROIS, maps.shape, 0.5, 2, True)
    torch.testing.assert_close(found, usual, rtol=0, atol=0)


def test_backward_of_strided_gradient(maps):
    x = maps.requires_grad_()
    out = roi_align(x, ROIS, (2, 3), 0.5, 2)
    weights = torch.rand(3, 2, 3, len(ROIS), dtype=torch.float64).permute(3, 0, 2, 1)
    (out.transpose(2, 3) * weights).sum().backward()
    strided, x.grad = x.grad, None
    out = roi_align(x, ROIS, (2, 3), 0.5, 2)
    (out * weights.transpose(2, 3).contiguous()).sum().backward()
    torch.testing.assert_close(strided, x.grad)


def test_backward_adds():
    from mmpaca.ops.roi_align import roi_align_backward

    empty = torch.zeros(0)
    roi, grad = torch.tensor([[0, 0.0, 0, 4, 4]]), torch.ones(1, 1, 1, 1)
    total = torch.ones(1, 1, 4, 4)
    roi_align_backward(grad, roi, empty, empty, total, 1, 1, 1.0, 0, 1, True)
    torch.testing.assert_close(total, torch.full((1, 1, 4, 4), 1 + 1 / 16))


@pytest.mark.parametrize('channels_last', [False, True])
def test_no_rois_and_layout(maps, channels_last):
    x = maps.clone()
    if channels_last:
        x = x.to(memory_format=torch.channels_last)
    x.requires_grad_()
    assert roi_align(x, ROIS[:0], (2, 2)).shape == (0, 3, 2, 2)
    roi_align(x, ROIS[:0], (2, 2)).sum().backward()
    assert x.grad.shape == x.shape and x.grad.eq(0).all()
    expected = roi_align_loop(maps, ROIS, (2, 2), 0.5, 2, True)
    torch.testing.assert_close(roi_align(x, ROIS, (2, 2), 0.5, 2), expected)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('rois_dtype', [None, torch.float32, torch.int64])
def test_half_precision_is_float32_rounded(maps, dtype, rois_dtype):
    x = maps.to(dtype).requires_grad_()
    rois = ROIS.trunc().to(rois_dtype or dtype)
    out = roi_align(x, rois, (2, 2), 0.5, 2)
    assert out.dtype == dtype
    expected = roi_align(x.detach().float(), rois.float(), (2, 2), 0.5, 2)
    torch.testing.assert_close(out, expected.to(dtype), rtol=0, atol=0)
    out.sum().backward()
    exact = maps.to(dtype).float().requires_grad_()
    roi_align(exact, rois.float(), (2, 2), 0.5, 2).sum().backward()
    torch.testing.assert_close(x.grad, exact.grad.to(dtype), rtol=0, atol=0)


def test_max_pooling_says_what_to_do(maps):
    with pytest.raises(NotImplementedError, match=r"'max'.*pool_mode='avg'"):
        RoIAlign((2, 2), pool_mode='max')(maps, ROIS)


def test_roi_extractor_of_mmdet_under_autocast():
    from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor

    torch.manual_seed(0)
    extractor = SingleRoIExtractor(
        roi_layer={'type': 'RoIAlign', 'output_size': 7, 'sampling_ratio': 0},
        out_channels=4,
        featmap_strides=[4, 8],
    )
    maps = [torch.randn(2, 4, 32, 32), torch.randn(2, 4, 16, 16)]
    rois = torch.tensor([[0, 8.0, 8, 64, 48], [1, 0, 0, 128, 120], [0, 32, 16, 128, 128]])
    expected = extractor(maps, rois)
    halves = [m.bfloat16().requires_grad_() for m in maps]
    with torch.autocast('cpu', dtype=torch.bfloat16):
        out = extractor(halves, rois)
        out.float().square().sum().backward()
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), expected, rtol=0.02, atol=0.02)
    assert all(m.grad.dtype == torch.bfloat16 and m.grad.abs().sum() > 0 for m in halves)
