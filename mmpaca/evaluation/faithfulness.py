"""Measures of relevance maps: how well does a map say what a score rests on?"""

from collections.abc import Sequence

import numpy as np


def curve_auc(scores: Sequence[float] | np.ndarray) -> float:
    """Area under scores at equal steps from 0 to 1, by trapezoids; 1 for constant scores of 1."""
    scores = np.asarray(scores, np.float64)
    return float((scores[1:] + scores[:-1]).mean() / 2)


def pointing_game(heat: np.ndarray, region: np.ndarray) -> float:
    """Pointing game (Zhang et al., 2018): is the largest value inside the region?

    Args:
        heat: (height, width).
        region: (height, width) bool.

    Returns:
        1 or 0; where several pixels share the largest value, the share of them inside.
    """
    return float(region[heat == heat.max()].mean())


def energy_pointing_game(heat: np.ndarray, region: np.ndarray) -> float:
    """Energy-based pointing game (Wang et al., 2020): share of all relevance inside the region.

    Args:
        heat: (height, width) >= 0.
        region: (height, width) bool.

    Returns:
        0 to 1; nan for a map of zeros.
    """
    total = heat.sum(dtype=np.float64)
    return float(heat[region].sum(dtype=np.float64) / total) if total > 0 else float('nan')


def gini(heat: np.ndarray) -> float:
    """Gini index of a map >= 0: 0 where all pixels are equal, towards 1 where one has all.

    Follows Chalasani et al. (2020), who measure the sparsity of explanations with it. A map of
    zeros has nan.
    """
    values = np.sort(heat, axis=None).astype(np.float64)
    total, count = values.sum(), values.size
    if total <= 0:
        return float('nan')
    ranks = np.arange(1, count + 1)
    return float((2 * ranks - count - 1) @ values / (count * total))


def rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Spearman's rank correlation of two maps, -1 to 1; nan if one of them is empty or constant."""
    if first.size == 0 or np.ptp(first) == 0 or np.ptp(second) == 0:  # scipy warns
        return float('nan')
    from scipy.stats import spearmanr  # takes a second to load

    return float(spearmanr(first, second, axis=None).statistic)


def bootstrap_interval(
    values: Sequence[float] | np.ndarray,
    groups: Sequence[int] | np.ndarray,
    repeats: int = 2000,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Mean with its 95 % interval from resampled groups.

    Detections of one image are alike: whole images are drawn, with replacement, not detections.

    Args:
        values: one per detection; nan ones are left out.
        groups: image of each.
        repeats: resamples.
        seed: of the draw.

    Returns:
        Mean, and the 2.5 % and 97.5 % quantiles of the mean; nan without values.
    """
    values = np.asarray(values, np.float64)
    known = ~np.isnan(values)
    if not known.any():
        return (float('nan'),) * 3
    _, group = np.unique(np.asarray(groups)[known], return_inverse=True)
    sums, counts = np.bincount(group, values[known]), np.bincount(group)
    drawn = np.random.default_rng(seed).integers(len(sums), size=(repeats, len(sums)))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(values[known].mean()), float(low), float(high)
