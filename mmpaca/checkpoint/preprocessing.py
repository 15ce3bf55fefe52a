"""The image preprocessing that weights were trained with, to compare it with a config's."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .config_text import parse_config

# Key of a checkpoint's ``meta``, for files without a config: those of the authors.
META_KEY = 'data_preprocessor'
# Means and standard deviations that differ by less, in grey levels, are taken for equal.
_TOLERANCE = 1.0


@dataclass(frozen=True)
class Preprocessing:
    """Normalisation and channel order of the images that a network sees.

    Attributes:
        mean: subtracted, per channel, in grey levels of 0 to 255; ``(0,)`` subtracts nothing.
        std: divided by, per channel, in grey levels; ``(1,)`` divides by nothing.
        rgb: True for RGB, False for BGR, None if the dataset decides it.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    rgb: bool | None

    def __str__(self) -> str:
        order = {True: 'RGB, ', False: 'BGR, ', None: ''}[self.rgb]
        return f'{order}mean {list(self.mean)}, std {list(self.std)}'

    def matches(self, other: 'Preprocessing') -> bool:
        """Tell whether a network can take images of the one for those of the other."""
        if None not in (self.rgb, other.rgb) and self.rgb != other.rgb:
            return False
        return _close(self.mean, other.mean) and _close(self.std, other.std)


def _close(ours: tuple[float, ...], theirs: tuple[float, ...]) -> bool:
    channels = max(len(ours), len(theirs))
    pairs = [values * channels if len(values) == 1 else values for values in (ours, theirs)]
    return len(pairs[0]) == len(pairs[1]) and all(
        abs(a - b) < _TOLERANCE for a, b in zip(*pairs, strict=True)
    )


def preprocessing_of_config(config: Mapping[str, Any]) -> Preprocessing | None:
    """Read the preprocessing from a config of mmdet, mmpretrain or mmseg; None if it has none."""
    given = (config.get('model') or {}).get('data_preprocessor') or config.get('data_preprocessor')
    if not isinstance(given, Mapping):
        return None
    given = given.get('data_preprocessor', given)  # semi-supervised detectors have it inside
    # Files are read as BGR; some datasets, e.g. CIFAR, give arrays in an order of their own.
    from_files = re.search(r'Load\w*Image', str(config.get('train_dataloader')))
    return _preprocessing(given, known_order=from_files is not None)


def preprocessing_of_checkpoint(checkpoint: Mapping[str, Any]) -> Preprocessing | None:
    """Read the preprocessing from a checkpoint's ``meta``; None if it does not say."""
    meta = checkpoint.get('meta')
    if not isinstance(meta, Mapping):
        return None
    try:
        if isinstance(meta.get(META_KEY), Mapping):
            return _preprocessing(meta[META_KEY], known_order=True)
        if isinstance(meta.get('cfg'), str):
            return preprocessing_of_config(parse_config(meta['cfg']))
    except (ValueError, TypeError, AttributeError):  # a config of another kind
        return None
    return None


def _preprocessing(given: Mapping[str, Any], known_order: bool) -> Preprocessing:
    mean, std = given.get('mean'), given.get('std')
    if mean is None or std is None:
        mean, std = [0.0], [1.0]
    # mmdet and mmseg, mmpretrain. mmengine swaps the channels for either name.
    swapped = any(given.get(key) for key in ('bgr_to_rgb', 'to_rgb', 'rgb_to_bgr'))
    return Preprocessing(
        tuple(map(float, mean)), tuple(map(float, std)), swapped if known_order else None
    )
