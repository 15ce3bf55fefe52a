"""NMS, soft-NMS and NMS matching against loops written from mmcv's C++ (float32 arithmetic)."""

import math

import numpy as np
import pytest
import torch
from mmcv.ops import batched_nms, nms, nms_match, soft_nms

F32 = np.float32


def iou(a, b, offset):
    """float32 IoU; NaN for two boxes without area."""

    def area(box):
        return (box[2] - box[0] + F32(offset)) * (box[3] - box[1] + F32(offset))

    width = max(F32(0), min(a[2], b[2]) - max(a[0], b[0]) + F32(offset))
    height = max(F32(0), min(a[3], b[3]) - max(a[1], b[1]) + F32(offset))
    shared = width * height
    union = area(a) + area(b) - shared
    return shared / union if union != 0 else (F32(math.nan) if shared == 0 else F32(math.inf))


def nms_loop(boxes, scores, threshold, offset=0):
    kept = []
    for i in sorted(range(len(boxes)), key=lambda i: -scores[i]):  # stable
        if not any(iou(boxes[j], boxes[i], offset) > F32(threshold) for j in kept):
            kept.append(i)
    return kept


def soft_nms_loop(boxes, scores, threshold, sigma, min_score, method, offset=0):
    """(indices, decayed scores), one box at a time."""
    items = [[i, F32(s)] for i, s in enumerate(scores)]
    i = 0
    while i < len(items):
        best = i
        for j in range(i + 1, len(items)):
            if items[j][1] > items[best][1]:
                best = j
        items[i], items[best] = items[best], items[i]
        j = i + 1
        while j < len(items):
            overlap = iou(boxes[items[i][0]], boxes[items[j][0]], offset)
            factor = F32(1)
            if method == 'naive' and overlap >= F32(threshold):
                factor = F32(0)
            elif method == 'linear' and overlap >= F32(threshold):
                factor = F32(1) - overlap
            elif method == 'gaussian' and not math.isnan(overlap):
                factor = np.exp(-(overlap * overlap) / F32(sigma))
            items[j][1] *= factor
            if items[j][1] < F32(min_score):
                last = items.pop()  # takes the place of the dropped box, then is looked at
                if j < len(items):
                    items[j] = last
            else:
                j += 1
        i += 1
    return [item[0] for item in items], [item[1] for item in items]


def fuzzed(seed):
    """Boxes with overlaps, duplicates, zero and negative extents, and scores with ties."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 40))
    corner = rng.uniform(-10, 30, (n, 2))
    size = rng.uniform(0, 20, (n, 2))
    if seed % 2:  # pixel grid: exact IoUs, also equal to the threshold
        corner, size = corner.round(), size.round()
    size[rng.random(n) < 0.1] = 0
    size[rng.random(n) < 0.1, 0] = 0
    boxes = np.concatenate((corner, corner + size), axis=1)
    flipped = rng.random(n) < 0.05
    boxes[flipped] = boxes[flipped][:, [2, 3, 0, 1]]
    boxes = boxes[rng.integers(0, n, n)] if seed % 3 == 0 else boxes
    scores = rng.random(n)
    scores = scores.round(1) if seed % 4 else scores
    return boxes.astype(F32), scores.astype(F32)


@pytest.mark.parametrize('offset', [0, 1])
def test_nms_equals_loop(offset):
    kept = 0
    for seed in range(200):
        boxes, scores = fuzzed(seed)
        threshold = (0.0, 0.3, 0.5, 0.7)[seed % 4]
        dets, index = nms(torch.tensor(boxes), torch.tensor(scores), threshold, offset)
        expected = nms_loop(boxes, scores, threshold, offset)
        assert index.tolist() == expected, seed
        assert np.array_equal(dets[:, :4].numpy(), boxes[expected])
        assert np.array_equal(dets[:, 4].numpy(), scores[expected])
        kept += len(expected) < len(boxes)
    assert kept > 100  # the fuzz suppresses something in most rounds


@pytest.mark.parametrize(
    ('threshold', 'offset', 'expected'),
    # widths 10 and 3 of one row: IoU 0.3 exactly; with offset 1, (11, 4 of 2 rows): 4 / 11
    [(0.3, 0, [0, 1]), (0.2999, 0, [0]), (0.3637, 1, [0, 1]), (0.3636, 1, [0])],
)
def test_nms_threshold_is_strict(threshold, offset, expected):
    boxes = torch.tensor([[0.0, 0, 10, 1], [0.0, 0, 3, 1]])
    assert nms(boxes, torch.tensor([0.9, 0.8]), threshold, offset)[1].tolist() == expected


def test_nms_offset_makes_touching_boxes_overlap():
    boxes = torch.tensor([[0.0, 0, 4, 4], [5.0, 0, 9, 4], [4.0, 0, 8, 4]])
    scores = torch.tensor([0.9, 0.8, 0.7])
    assert nms(boxes, scores, 0.0, offset=0)[1].tolist() == [0, 1]
    # five pixels wide: box 0 ends at pixel 4, box 1 starts at pixel 5, box 2 shares with both
    assert nms(boxes, scores, 0.0, offset=1)[1].tolist() == [0, 1]
    assert nms(boxes[[0, 2]], scores[:2], 0.11, offset=0)[1].tolist() == [0, 1]
    assert nms(boxes[[0, 2]], scores[:2], 0.11, offset=1)[1].tolist() == [0]  # 5 / 45


def test_nms_ties_keep_input_order():
    boxes = torch.tensor([[0.0, 0, 1, 1]]).repeat(100, 1) + 2 * torch.arange(100.0)[:, None]
    scores = torch.full((100,), 0.5)
    for _ in range(3):
        assert nms(boxes, scores, 0.5)[1].tolist() == list(range(100))


def test_nms_identical_and_empty_boxes():
    same = torch.tensor([[1.0, 1, 5, 5]]).repeat(4, 1)
    scores = torch.tensor([0.1, 0.4, 0.4, 0.2])
    assert nms(same, scores, 0.99)[1].tolist() == [1]
    points = torch.tensor([[1.0, 1, 1, 1]]).repeat(4, 1)
    assert nms(points, scores, 0.5)[1].tolist() == [1, 2, 3, 0]
    dets, index = nms(torch.zeros(0, 4), torch.zeros(0), 0.5)
    assert dets.shape == (0, 5) and index.dtype == torch.long and index.shape == (0,)


def test_nms_score_threshold_and_max_num():
    boxes = torch.tensor([[0.0, 0, 1, 1], [5.0, 0, 6, 1], [9.0, 0, 10, 1], [20.0, 0, 21, 1]])
    scores = torch.tensor([0.2, 0.9, 0.05, 0.5])
    assert nms(boxes, scores, 0.5, score_threshold=0.1)[1].tolist() == [1, 3, 0]
    assert nms(boxes, scores, 0.5, score_threshold=0.1, max_num=2)[1].tolist() == [1, 3]


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_nms_half_precision(dtype):
    for seed in range(40):
        boxes, scores = (torch.tensor(a).to(dtype) for a in fuzzed(seed))
        expected = nms_loop(boxes.float().numpy(), scores.float().numpy(), 0.5)
        dets, index = nms(boxes, scores, 0.5)
        assert index.tolist() == expected and dets.dtype == dtype
        # as under autocast: scores in half precision, boxes decoded in float32
        dets, index = nms(boxes.float(), scores, 0.5)
        assert index.tolist() == expected and dets.dtype == torch.float32


def test_nms_float64_and_numpy():
    boxes, scores = fuzzed(3)
    expected = nms_loop(boxes, scores, 0.5)
    dets, index = nms(boxes.astype(np.float64), scores.astype(np.float64), 0.5)
    assert index.tolist() == expected and dets.dtype == np.float64


def test_nms_of_tensors_that_require_grad():
    boxes = torch.tensor([[0.0, 0, 4, 4], [0.0, 0, 4, 3]], requires_grad=True)
    scores = torch.tensor([0.3, 0.6], requires_grad=True)
    dets, index = nms(boxes, scores, 0.5)
    assert index.tolist() == [1]
    dets.sum().backward()
    assert boxes.grad.tolist() == [[0, 0, 0, 0], [1, 1, 1, 1]] and scores.grad.tolist() == [0, 1]


@pytest.mark.parametrize('agnostic', [False, True])
@pytest.mark.parametrize('split_thr', [10000, 1])
def test_batched_nms(agnostic, split_thr):
    for seed in range(30):
        boxes, scores = fuzzed(2 * seed + 1)  # integers: class shifts leave the IoUs alone
        boxes = boxes - boxes.min()  # mmcv separates classes by max + 1: no negative coordinates
        labels = np.random.default_rng(seed).integers(0, 3, len(boxes))
        dets, index = batched_nms(
            *map(torch.tensor, (boxes, scores, labels)),
            {'type': 'nms', 'iou_threshold': 0.4, 'split_thr': split_thr},
            class_agnostic=agnostic,
        )
        # mmcv splits by class also what is class agnostic
        groups = [labels == c for c in range(3)]
        if agnostic and split_thr > len(boxes):
            groups = [labels >= 0]
        expected = set()
        for group in groups:
            where = group.nonzero()[0]
            expected |= set(where[nms_loop(boxes[where], scores[where], 0.4)].tolist())
        index = index.numpy()
        assert len(index) == len(expected) and set(index) == expected, seed
        assert np.array_equal(dets[:, :4].numpy(), boxes[index])
        assert np.array_equal(dets[:, 4].numpy(), scores[index])
        assert np.array_equal(dets[:, 4].numpy(), np.sort(scores[list(expected)])[::-1])


@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('method', ['naive', 'linear', 'gaussian'])
def test_soft_nms_equals_loop(method, offset):
    dropped = 0
    for seed in range(150):
        boxes, scores = fuzzed(seed)
        threshold, sigma = (0.0, 0.3, 0.5)[seed % 3], (0.1, 0.5)[seed % 2]
        min_score = (1e-3, 0.2, 0.0)[seed % 3]
        dets, index = soft_nms(
            torch.tensor(boxes),
            torch.tensor(scores),
            threshold,
            sigma,
            min_score,
            method,
            offset,
        )
        chosen, decayed = soft_nms_loop(boxes, scores, threshold, sigma, min_score, method, offset)
        assert index.tolist() == chosen, seed
        assert np.array_equal(dets[:, :4].numpy(), boxes[chosen])
        np.testing.assert_allclose(dets[:, 4].numpy(), decayed, rtol=1e-6)
        dropped += len(chosen) < len(boxes)
    assert dropped > 50


def test_soft_nms_by_hand():
    boxes = torch.tensor([[0.0, 0, 10, 10], [0.0, 0, 10, 5], [20.0, 0, 30, 10]])
    scores = torch.tensor([0.8, 0.6, 0.5])
    dets, index = soft_nms(boxes, scores, 0.3, method='linear', min_score=0.01)
    assert index.tolist() == [0, 2, 1]
    torch.testing.assert_close(dets[:, 4], torch.tensor([0.8, 0.5, 0.3]))
    dets, index = soft_nms(boxes, scores, 0.3, sigma=0.5, method='gaussian', min_score=0.01)
    torch.testing.assert_close(dets[:, 4], torch.tensor([0.8, 0.5, 0.6 * math.exp(-0.5)]))
    _, index = soft_nms(boxes, scores, 0.3, method='naive', min_score=0.01)
    assert index.tolist() == [0, 2]


def test_soft_nms_keeps_the_best_below_min_score():
    boxes = torch.tensor([[0.0, 0, 1, 1], [5.0, 0, 6, 1]])
    assert soft_nms(boxes, torch.tensor([0.1, 0.2]), min_score=0.5)[1].tolist() == [1]


def test_soft_nms_points_stay_finite():
    points = torch.tensor([[3.0, 3, 3, 3]]).repeat(3, 1)
    dets, index = soft_nms(points, torch.tensor([0.1, 0.3, 0.2]), method='gaussian')
    assert index.tolist() == [1, 2, 0]
    torch.testing.assert_close(dets[:, 4], torch.tensor([0.3, 0.2, 0.1]))


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64])
def test_soft_nms_other_dtypes(dtype):
    boxes = torch.tensor([[0.0, 0, 10, 10], [0.0, 0, 10, 5], [20.0, 0, 30, 10]], dtype=dtype)
    scores = torch.tensor([0.75, 0.5, 0.375], dtype=dtype, requires_grad=True)
    dets, index = soft_nms(boxes, scores, 0.3, method='linear')
    assert index.tolist() == [0, 2, 1] and dets.dtype == dtype
    assert dets[:, 4].tolist() == [0.75, 0.375, 0.25]


def test_soft_nms_empty_and_inputs_unchanged():
    dets, index = soft_nms(torch.zeros(0, 4), torch.zeros(0))
    assert dets.shape == (0, 5) and index.shape == (0,)
    boxes, scores = (torch.tensor(a) for a in fuzzed(5))
    before = boxes.clone(), scores.clone()
    soft_nms(boxes, scores, method='gaussian')
    assert torch.equal(boxes, before[0]) and torch.equal(scores, before[1])


def test_soft_nms_unknown_method():
    from mmpaca.ops.nms import softnms

    with pytest.raises(ValueError, match=r'method=3 .*gaussian'):
        softnms(torch.zeros(1, 4), torch.zeros(1), torch.zeros(1, 5), 0.5, 0.5, 0.1, 3, 0)


def test_soft_nms_through_batched_nms():
    boxes = torch.tensor([[0.0, 0, 10, 10], [0.0, 0, 10, 5], [0.0, 0, 10, 10]])
    labels = torch.tensor([0, 0, 1])
    config = {'type': 'soft_nms', 'iou_threshold': 0.3, 'min_score': 0.01}
    dets, index = batched_nms(boxes, torch.tensor([0.8, 0.6, 0.5]), labels, config)
    assert index.tolist() == [0, 2, 1]
    torch.testing.assert_close(dets[:, 4], torch.tensor([0.8, 0.5, 0.3]))


def test_nms_match_equals_loop():
    for seed in range(60):
        boxes, scores = fuzzed(seed)
        expected, left = [], sorted(range(len(boxes)), key=lambda i: -scores[i])
        while left:
            first, *rest = left
            hit = [i for i in rest if iou(boxes[first], boxes[i], 0) >= F32(0.5)]
            expected.append([first, *hit])
            left = [i for i in rest if i not in hit]
        groups = nms_match(torch.tensor(np.column_stack((boxes, scores))), 0.5)
        assert [g.tolist() for g in groups] == expected, seed
    assert nms_match(torch.zeros(0, 5), 0.5) == []
    # equal to the threshold is enough here
    dets = np.array([[0, 0, 10, 1, 0.9], [0, 0, 5, 1, 0.8]], dtype=F32)
    assert [g.tolist() for g in nms_match(dets, 0.5)] == [[0, 1]]


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_multiclass_nms_of_mmdet(dtype):
    from mmdet.models.layers import multiclass_nms

    boxes = torch.tensor([[0.0, 0, 10, 10], [0.0, 0, 10, 8], [20.0, 0, 30, 10]])
    scores = torch.tensor([[0.75, 0.5, 0], [0.625, 0.25, 0], [0.01, 0.875, 0]]).to(dtype)
    with torch.autocast('cpu', dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        dets, labels = multiclass_nms(
            boxes, scores, 0.05, {'type': 'nms', 'iou_threshold': 0.5}, max_num=10
        )
    assert labels.tolist() == [1, 0, 1]
    assert dets.tolist() == [[20, 0, 30, 10, 0.875], [0, 0, 10, 10, 0.75], [0, 0, 10, 10, 0.5]]
