"""What a test pipeline does to an image between loading and the data preprocessor."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

#: (backend, interpolation) of mmcv's resizing that the exported graph computes.
INTERPOLATIONS = (
    ('cv2', 'bilinear'),
    ('cv2', 'bicubic'),
    ('pillow', 'bilinear'),
    ('pillow', 'bicubic'),
)
# Transforms that do not change the pixels of a three-channel image that is there already.
_READS = ('Load', 'Pack', 'Collect')


@dataclass(frozen=True)
class Resize:
    """Resizing.

    Attributes:
        rule: ``'ratio'``: the largest size with this ratio in which the longer side is at most the
            longer of ``scale`` and the shorter at most the shorter; ``'short'`` or ``'long'``: that
            edge gets the size ``scale[0]``; ``'exact'``: width and height are ``scale``;
            ``'factor'``: they are multiplied by it; ``'ratio_factor'``: as ``'ratio'``, with the
            size of ``'factor'`` in the place of ``scale``.
        scale: width, height.
        interpolation: ``'bilinear'`` or ``'bicubic'``.
        backend: ``'cv2'``, or ``'pillow'``, which smooths what it shrinks.
    """

    rule: str
    scale: tuple[float, float]
    interpolation: str
    backend: str


@dataclass(frozen=True)
class Pad:
    """Padding at the right and at the bottom to a size (width, height)."""

    size: tuple[int, int]
    value: float


@dataclass(frozen=True)
class Crop:
    """Crop of the centre: width, height."""

    size: tuple[int, int]


Step = Resize | Pad | Crop


def read_pipeline(pipeline: Sequence[Mapping[str, Any]]) -> list[Step]:
    """Read the steps that change the image.

    Args:
        pipeline: test pipeline of a config of mmdet or mmpretrain.

    Raises:
        ValueError: a transform is not covered; the error names it.
    """
    steps: list[Step] = []
    for transform in pipeline:
        name = str(transform['type']).rpartition('.')[2].rstrip("'>")
        if name in _STEPS:
            steps.append(_STEPS[name](transform))
        elif not name.startswith(_READS):
            raise ValueError(
                f'the test pipeline has {name}, which is not exported: it may have '
                f'{", ".join(_STEPS)}; or leave all of them out with --no-resize'
            )
    return steps


def fixed_size(steps: Sequence[Step]) -> tuple[int, int] | None:
    """Return height and width of the network's input, if they are the same for all images."""
    size = None
    for step in steps:
        if isinstance(step, Resize):
            size = step.scale if step.rule == 'exact' else None
        else:
            size = step.size
    return size and (int(size[1]), int(size[0]))


def _resize(transform: Mapping[str, Any]) -> Resize:
    keep_ratio, factor = transform.get('keep_ratio', False), transform.get('scale_factor')
    if 'scale' in transform:
        rule = 'ratio' if keep_ratio else 'exact'
        return Resize(rule, _pair(transform['scale']), *_how(transform))
    if factor is None:
        raise ValueError('Resize in the test pipeline has neither scale nor scale_factor')
    factors = factor if isinstance(factor, Sequence) else (factor, factor)
    rule = 'ratio_factor' if keep_ratio else 'factor'
    return Resize(rule, (float(factors[0]), float(factors[1])), *_how(transform))


def _resize_edge(transform: Mapping[str, Any]) -> Resize:
    edge = transform.get('edge', 'short')
    if edge not in ('short', 'long'):
        raise ValueError(f'ResizeEdge(edge={edge!r}) is not exported, only short and long are')
    return Resize(edge, _pair(transform['scale']), *_how(transform))


def _how(transform: Mapping[str, Any]) -> tuple[str, str]:
    interpolation = transform.get('interpolation', 'bilinear')
    backend = transform.get('backend', 'cv2')
    if (backend, interpolation) not in INTERPOLATIONS:
        known = ', '.join(f'{b} {i}' for b, i in INTERPOLATIONS)
        raise ValueError(
            f'resizing by {backend} with interpolation={interpolation!r} is not exported, '
            f'these are: {known}'
        )
    return interpolation, backend


def _pad(transform: Mapping[str, Any]) -> Pad:
    size, value = transform.get('size'), transform.get('pad_val', 0)
    if size is None:
        raise ValueError(
            'Pad in the test pipeline is exported with size=(W, H) only; '
            'pad_size_divisor of the data_preprocessor is, too'
        )
    value = value.get('img', 0) if isinstance(value, Mapping) else value
    values = {*value} if isinstance(value, Sequence) else {value}
    if len(values) != 1:
        raise ValueError(f'Pad with pad_val={value}: only one value for all channels is exported')
    return Pad(_pair(size), float(values.pop()))


def _crop(transform: Mapping[str, Any]) -> Crop:
    if transform.get('auto_pad', False):
        raise ValueError('CenterCrop with auto_pad=True is not exported')
    return Crop(_pair(transform['crop_size']))


def _pair(size: int | Sequence[int]) -> tuple[int, int]:
    width, height = (size, size) if isinstance(size, int) else size
    return int(width), int(height)


_STEPS: dict[str, Callable[[Mapping[str, Any]], Step]] = dict(
    Resize=_resize, ResizeEdge=_resize_edge, Pad=_pad, CenterCrop=_crop
)
