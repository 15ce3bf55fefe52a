"""A split into training and validation for data that has none."""

import random
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

VAL_SHARE = 0.2
_NUMBER = re.compile(r'[\W_]*\d+$')


def group_of(path: Path) -> str:
    """Return a name without its last number: frames of one video have the same."""
    return f'{path.parent}/{_NUMBER.sub("", path.stem)}'


def split_randomly(
    paths: Sequence[Path], val_share: float = VAL_SHARE, seed: int = 0
) -> tuple[set[Path], str]:
    """Choose images for validation.

    Images whose names differ in the last number only (``patient7_slice12``) stay together, if that
    gives at least five groups of two images on average. Otherwise each image is drawn by itself.

    Args:
        paths: all images, at least two.
        val_share: share of the images for validation.
        seed: random seed; the same files always give the same split.

    Returns:
        The images for validation, and a sentence about how they were chosen.

    Raises:
        ValueError: there are fewer than two images.
    """
    if len(paths) < 2:
        raise ValueError(
            f'{len(paths)} labelled image: training and validation need at least one each'
        )
    groups: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(paths):
        groups[group_of(path)].append(path)
    by_group = len(groups) >= 5 and len(groups) * 2 <= len(paths)
    parts = list(groups.values()) if by_group else [[path] for path in sorted(paths)]
    random.Random(seed).shuffle(parts)
    wanted = max(1, round(val_share * len(paths)))
    chosen: set[Path] = set()
    for part in parts[:-1]:  # at least one is left for training
        if len(chosen) >= wanted:
            break
        chosen.update(part)
    how = (
        f'{len(groups)} groups of names that differ in the last number only, kept together'
        if by_group
        else 'image by image'
    )
    return (
        chosen,
        f'the data has no split: {len(chosen)} of {len(paths)} images were drawn for validation (seed {seed}), {how}',
    )
