"""mmdet's DetInferencer goes on where an image of several is broken."""

import functools
import logging
from collections.abc import Callable, Iterator, Sequence
from itertools import compress
from typing import Any

import numpy as np
from mmengine.infer import BaseInferencer
from mmengine.logging import print_log

from mmpaca.datasets.evaluation import BROKEN, PLACEHOLDER_SIZE, drop_predictions, verified

__all__ = ['register_tolerance']


def register_tolerance() -> None:
    """Let every DetInferencer that is built from now on tolerate broken image files."""
    init = BaseInferencer.__init__
    if init.__module__ == __name__:  # wrapped already
        return

    @functools.wraps(init)
    def tolerant(self: BaseInferencer, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        # mmdet.apis is not imported for this: it takes seconds.
        if any(cls.__module__ == 'mmdet.apis.det_inferencer' for cls in type(self).__mro__):
            _Tolerance(self)

    tolerant.__module__ = __name__
    BaseInferencer.__init__ = tolerant


class _Tolerance:
    """Replaces a DetInferencer's pipeline: a broken image is an image without predictions.

    The files are read and checked as in training. A broken one is named in a warning; predictions stay
    in the order of the inputs. If no image can be read, that is an error.
    """

    def __init__(self, inferencer: Any) -> None:
        self.steps = inferencer.pipeline
        self._broken: list[str] = []
        self._total = 1
        for step in self.steps.transforms:
            if hasattr(step, 'from_file'):  # mmdet's InferencerLoader
                step.from_file = verified(step.from_file)
        inferencer.pipeline = self
        inferencer.preprocess = functools.partial(self._preprocess, inferencer.preprocess)
        inferencer.visualize = functools.partial(_visualize, inferencer.visualize)
        inferencer.model.register_forward_hook(drop_predictions)

    def __call__(self, data: str | np.ndarray | dict) -> dict:
        """Load an image.

        Raises:
            ValueError: none of the images can be loaded; the error names the last one.
        """
        try:
            return self.steps(data)
        except Exception as error:  # arbitrary bytes make decoders raise anything
            path = data.get('img_path') if isinstance(data, dict) else data
            if not isinstance(path, str):
                raise
            black = np.zeros((*PLACEHOLDER_SIZE, 3), np.uint8)
            rest = {**data, 'img': black} if isinstance(data, dict) else black
            sample = self.steps(rest)  # raises if it is not the image that is wrong
            self._broken.append(path)
            if len(self._broken) >= self._total:
                raise ValueError(f'{path} cannot be read as an image: {error}') from error
            sample['data_samples'].set_metainfo({BROKEN: True, 'img_path': path})
            _warn(f'bad image {path}: {error}; it has no predictions')
            return sample

    def _preprocess(
        self, preprocess: Callable, inputs: Sequence, *args: Any, **kwargs: Any
    ) -> Iterator:
        self._broken, self._total = [], len(inputs)
        yield from preprocess(inputs, *args, **kwargs)
        if len(self._broken) > 1:
            _warn(
                f'Bad data: {len(self._broken)} of {self._total} images could not be loaded and have '
                f'no predictions: {", ".join(self._broken)}'
            )


def _visualize(
    visualize: Callable, inputs: Sequence, preds: Sequence, **kwargs: Any
) -> list[np.ndarray] | None:
    """Draw the images that could be loaded; a black one stands for each of the others."""
    good = [not pred.get(BROKEN, False) for pred in preds]
    drawn = visualize(list(compress(inputs, good)), list(compress(preds, good)), **kwargs)
    if drawn is None:
        return None
    pictures = iter(drawn)
    black = np.zeros((*PLACEHOLDER_SIZE, 3), np.uint8)
    return [next(pictures) if is_good else black for is_good in good]


def _warn(message: str) -> None:
    print_log(message, 'current', logging.WARNING)
