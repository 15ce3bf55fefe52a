"""Measures of relevance maps on cases that can be computed by hand."""

import numpy as np
import pytest

from mmpaca.evaluation.faithfulness import (
    bootstrap_interval,
    curve_auc,
    energy_pointing_game,
    gini,
    pointing_game,
    rank_correlation,
)


def test_curve_auc():
    assert curve_auc([1, 1, 1]) == 1
    assert curve_auc([1, 0]) == 0.5
    # 0.25 wide: (1 + 0.5) / 2, (0.5 + 0) / 2, 0, 0
    assert curve_auc([1, 0.5, 0, 0, 0]) == 0.25 * (0.75 + 0.25)


def test_pointing_games():
    heat = np.array([[4.0, 1, 0], [0, 0, 3]])
    left, right = np.zeros((2, 2, 3), bool)
    left[:, :2] = True
    right[:, 2] = True
    assert (pointing_game(heat, left), pointing_game(heat, right)) == (1, 0)
    assert energy_pointing_game(heat, left) == 5 / 8
    heat[1, 2] = 4  # two largest, one of them inside
    assert pointing_game(heat, left) == 0.5
    assert np.isnan(energy_pointing_game(0 * heat, left))


def test_gini():
    assert gini(np.ones((3, 4))) == 0
    one = np.zeros((2, 5))
    one[1, 3] = 7
    assert gini(one) == pytest.approx(0.9)  # 1 - 1 / n
    assert gini(np.array([1.0, 3.0])) == 0.25
    assert np.isnan(gini(np.zeros(3)))


def test_rank_correlation():
    heat = np.array([[1.0, 5, 2], [7, 3, 9]])
    assert rank_correlation(heat, heat**3) == pytest.approx(1)
    assert rank_correlation(heat, -heat) == pytest.approx(-1)
    # Spearman: 1 - 6 * sum(d^2) / (n (n^2 - 1)), with d^2 = 1, 1 and 0.
    assert rank_correlation(np.array([1, 2, 3]), np.array([2, 1, 3])) == pytest.approx(0.5)
    assert np.isnan(rank_correlation(heat, np.ones_like(heat)))


def test_bootstrap_draws_images():
    """Detections of one image are one observation: the interval is as wide as without copies."""
    values = np.array([0.0, 1.0, 0.5, 0.25])
    single = bootstrap_interval(values, range(4))
    copied = bootstrap_interval(np.repeat(values, 9), np.repeat(range(4), 9))
    assert copied == pytest.approx(single)
    mean, low, high = single
    assert mean == values.mean() and low < 0.2 and high > 0.7
    assert bootstrap_interval([0.5, np.nan, 0.5], [0, 1, 2]) == (0.5, 0.5, 0.5)
    assert all(np.isnan(bootstrap_interval([np.nan], [0])))
