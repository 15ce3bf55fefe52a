"""Charts of the measurements of :mod:`mmpaca.analysis.timing`."""

from collections import defaultdict
from pathlib import Path

import matplotlib

matplotlib.use('Agg')  # files only, no display needed
import matplotlib.pyplot as plt

from .zoo import PEERS


def _save(figure: plt.Figure, path: Path) -> Path:
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    plt.close(figure)
    return path


def _grouped(rows: list[dict], *keys: str) -> dict[tuple, list[dict]]:
    groups = defaultdict(list)
    for row in rows:
        groups[tuple(row[key] for key in keys)].append(row)
    return groups


def plot_accuracy(rows: list[dict], folder: Path) -> list[Path]:
    """Plot published box AP of Mask R-CNN 1x against measured time, a file per task.

    Args:
        rows: from :func:`mmpaca.analysis.timing.measure`; models without a published AP are
            skipped.
        folder: folder to write.

    Returns:
        Paths of the files.
    """
    paths = []
    for (mode, shape, dtype), group in _grouped(rows, 'mode', 'shape', 'dtype').items():
        known = [(row, ap) for row in group if (ap := _published_ap(row['model']))]
        if not known:
            continue
        figure, axes = plt.subplots(figsize=(6, 4))
        for row, ap in known:
            ours = row['model'].startswith('paca')
            point = (row['seconds'], ap)
            axes.scatter(*point, color='tab:blue' if ours else 'tab:gray')
            axes.annotate(row['model'], point, xytext=(4, 4), textcoords='offset points')
        size = 'x'.join(map(str, shape))
        axes.set(xlabel=f'{mode}, {size}, {dtype} (s)', ylabel='published box AP (COCO, 1x)')
        axes.set_xlim(0, 1.2 * max(row['seconds'] for row, _ in known))  # room for the names
        paths.append(_save(figure, folder / f'accuracy_{mode}_{size}_{dtype}.png'))
    return paths


def plot_scaling(rows: list[dict], folder: Path) -> list[Path]:
    """Plot time and memory against the number of pixels, a file per mode and precision.

    Args:
        rows: from :func:`mmpaca.analysis.timing.measure`.
        folder: folder to write.

    Returns:
        Paths of the files.
    """
    paths = []
    for (mode, dtype), group in _grouped(rows, 'mode', 'dtype').items():
        figure, panels = plt.subplots(1, 2, figsize=(10, 4))
        for (model,), points in _grouped(group, 'model').items():
            points = sorted(points, key=_pixels)
            pixels = [_pixels(row) / 1e6 for row in points]
            panels[0].plot(pixels, [row['seconds'] for row in points], 'o-', label=model)
            panels[1].plot(pixels, [row['peak_bytes'] / 2**30 for row in points], 'o-')
        for panel, label in zip(panels, ('time (s)', 'peak memory (GiB)'), strict=True):
            panel.set(xlabel=f'megapixels ({mode}, {dtype})', ylabel=label, xscale='log')
            panel.set_yscale('log')
        panels[0].legend(fontsize='small')
        paths.append(_save(figure, folder / f'scaling_{mode}_{dtype}.png'))
    return paths


def _published_ap(model: str) -> float | None:
    return PEERS[model][1] if model in PEERS else None


def _pixels(row: dict) -> int:
    batch, height, width = row['shape']
    return batch * height * width
