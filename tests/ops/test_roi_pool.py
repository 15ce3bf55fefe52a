"""RoIPool through mmcv's function, against loops. (torchvision's RoIPool rounds otherwise.)"""

import math

import pytest
import torch
from mmcv.ops import RoIPool, roi_pool

from mmpaca.ops import roi_pool as module


def roi_pool_loop(x, rois, size, scale):
    _, channels, height, width = x.shape
    out = torch.zeros(len(rois), channels, *size, dtype=x.dtype)
    grad = torch.zeros_like(x)  # of the sum of the output
    for k, (image, *box) in enumerate(rois.tolist()):
        x1, y1, x2, y2 = box[0] * scale, box[1] * scale, (box[2] + 1) * scale, (box[3] + 1) * scale
        if x2 <= x1 or y2 <= y1:
            continue
        step_y, step_x = (y2 - y1) / size[0], (x2 - x1) / size[1]
        for c in range(channels):
            for i in range(size[0]):
                for j in range(size[1]):
                    rows = range(
                        max(math.floor(i * step_y + y1), 0),
                        min(math.ceil((i + 1) * step_y + y1), height),
                    )
                    columns = range(
                        max(math.floor(j * step_x + x1), 0),
                        min(math.ceil((j + 1) * step_x + x1), width),
                    )
                    cells = [(r, q) for r in rows for q in columns]
                    if cells:
                        best = max(cells, key=lambda at: x[int(image), c][at].item())
                        out[k, c, i, j] = x[int(image), c][best]
                        grad[int(image), c][best] += 1
    return out, grad


ROIS = torch.tensor(
    [
        [0, 1.25, 2.5, 11.5, 9.25],
        [1, 0, 0, 17, 13],
        [0, -6, -5, 5, 4.5],  # partly outside
        [1, 12, 10, 40, 30],
        [1, 6, 6, 6, 6],  # one pixel
        [0, 100, 100, 120, 120],  # outside
        [1, 8, 3, 4, 9],  # x2 < x1
        [1, 3, 3, 3.5, 9],
    ],
    dtype=torch.float64,
)


@pytest.fixture
def maps():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 3, 7, 9, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize('size', [(2, 3), (1, 1), (4, 4)])
@pytest.mark.parametrize('scale', [0.5, 1.0])
def test_equals_loop(maps, size, scale):
    expected, expected_grad = roi_pool_loop(maps, ROIS, size, scale)
    x = maps.requires_grad_()
    out = roi_pool(x, ROIS, size, scale)
    assert torch.equal(out, expected)
    assert out[5].eq(0).all() and out[6].eq(0).all()
    out.sum().backward()
    assert torch.equal(x.grad, expected_grad)


def test_fuzz(monkeypatch):
    """Small chunks give the same: negative maps, ties, many RoIs of mixed size."""
    generator = torch.Generator().manual_seed(1)
    for seed in range(10):
        x = torch.randint(-9, 0, (2, 2, 6, 8), generator=generator).double().requires_grad_()
        corner = torch.rand(12, 2, generator=generator, dtype=torch.float64) * 24 - 8
        size = torch.rand(12, 2, generator=generator, dtype=torch.float64) * 20 - 1
        image = torch.randint(0, 2, (12, 1), generator=generator)
        rois = torch.cat((image, corner, corner + size), dim=1)
        monkeypatch.setattr(module, 'GATHER_LIMIT', (1, 300, 2**24)[seed % 3])
        out = roi_pool(x, rois, (3, 2), 0.5)
        expected, expected_grad = roi_pool_loop(x.detach(), rois, (3, 2), 0.5)
        assert torch.equal(out, expected), seed
        out.sum().backward()
        assert torch.equal(x.grad, expected_grad), seed


def test_gradcheck(maps):
    maps.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: roi_pool(x, ROIS, (2, 2), 0.5), (maps,))


def test_no_rois_and_bad_image_index(maps):
    x = maps.requires_grad_()
    out = RoIPool((2, 2), 0.5)(x, ROIS[:0])
    assert out.shape == (0, 3, 2, 2)
    out.sum().backward()
    assert x.grad.eq(0).all()
    for image in (-1, 2):
        with pytest.raises(IndexError, match='index out of range'):
            roi_pool(maps, torch.tensor([[image, 0.0, 0, 4, 4]]), (2, 2), 0.5)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision(maps, dtype):
    x = maps.to(dtype).requires_grad_()
    expected, expected_grad = roi_pool_loop(x.detach().double(), ROIS, (2, 2), 0.5)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        out = roi_pool(x, ROIS.to(dtype), (2, 2), 0.5)
    assert out.dtype == dtype and torch.equal(out, expected.to(dtype))
    out.sum().backward()
    assert torch.equal(x.grad, expected_grad.to(dtype))
