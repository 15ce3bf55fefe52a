"""Detections of two programs, one to one."""

import numpy as np
import pytest

from mmpaca.deploy.agreement import TOLERANCES, Agreement, Detections, box_iou, compare

FP32 = TOLERANCES['fp32']


def found(*rows):
    """Detections of (left, top, right, bottom, score, label)."""
    rows = np.array(rows, np.float32).reshape(-1, 6)
    return Detections(rows[:, :4], rows[:, 4], rows[:, 5].astype(int))


A = (0, 0, 10, 10, 0.9, 1)
B = (20, 20, 40, 40, 0.5, 2)


def test_box_iou():
    boxes = np.array([[0, 0, 10, 10], [5, 5, 5, 5]])
    others = np.array([[0, 0, 10, 5], [20, 20, 30, 30], [5, 5, 5, 5]])
    assert np.allclose(box_iou(boxes, others), [[0.5, 0, 0], [0, 0, 1]])


def test_equal_in_another_order():
    result = compare(found(A, A, B), found(B, A, A), FP32, 100, 0.05)
    assert (result.detections, result.unmatched, result.box_error) == (6, 0, 0)
    assert result.within(FP32)


@pytest.mark.parametrize(
    ('given', 'unmatched'),
    [
        ((0, 0, 10, 10.05, 0.9, 1), 0),  # IoU 0.995
        ((0, 0, 10, 10.2, 0.9, 1), 2),
        ((0, 0, 10, 10, 0.9009, 1), 0),
        ((0, 0, 10, 10, 0.902, 1), 2),
        ((0, 0, 10, 10, 0.9, 2), 2),
    ],
)
def test_tolerances(given, unmatched):
    result = compare(found(A), found(given), FP32, 100, 0.05)
    assert result.unmatched == unmatched and result.within(FP32) == (not unmatched)
    assert len(result.examples) == unmatched


def test_where_the_lists_end():
    low = (60, 60, 70, 70, 0.0504, 1)
    assert compare(found(A, low), found(A), FP32, 100, 0.05).unmatched == 0  # at the threshold
    assert compare(found(A, B), found(A), FP32, 100, 0.05).unmatched == 1
    # Of lists that are full, the last ones may differ.
    close = (60, 60, 70, 70, 0.5004, 1)
    assert compare(found(A, B), found(A, close), FP32, 2, 0.05).unmatched == 0
    assert compare(found(A, B), found(A, close), FP32, 3, 0.05).unmatched == 2


def test_sums_and_masks():
    one, other = found(A), found(A)
    one.masks, other.masks = np.zeros((1, 8, 8), bool), np.zeros((1, 8, 8), bool)
    one.masks[0, :4], other.masks[0, :5] = True, True
    total = compare(one, other, FP32, 100, 0.05) + Agreement(2, 10, 1, 0.5, 0.1, 60, 2)
    assert (total.images, total.detections, total.unmatched) == (3, 12, 1)
    assert (total.box_error, total.score_error) == (0.5, 0.1)
    assert (total.mask_pixels, total.mask_errors) == (100, 10)
    assert not total.within(FP32)
