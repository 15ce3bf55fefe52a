"""Measure explanations of a detector: the function behind ``mmpaca explain-eval``."""

import copy
import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope
from torch import nn

from mmpaca.checkpoint.saving import write_atomically
from mmpaca.datasets.images import read_image
from mmpaca.evaluation.faithfulness import bootstrap_interval, rank_correlation
from mmpaca.evaluation.faithfulness_metric import annotated_region, measure
from mmpaca.explain.attribution import METHODS, apply
from mmpaca.explain.scene import Detection, read_detections
from mmpaca.explain.subject import Subject

from .inference import Predictor

#: What is measured of a map.
MEASURES = (
    'deletion', 'insertion', 'pointing', 'energy', 'sparsity', 'randomised', 'stability', 'seconds'
)  # fmt: skip
_NOISE = 0.02 * 255  # standard deviation in grey levels
_CHECK_EVERY = 5  # images, for the measures that need two more maps


@dataclass
class AnnotatedImage:
    """An image of a dataset.

    Attributes:
        path: its file.
        image: (height, width, 3) uint8 RGB.
        instances: annotations as mmdet's datasets list them.
    """

    path: str
    image: np.ndarray
    instances: list[dict]


def read_images(config: Config) -> Iterator[AnnotatedImage]:
    """Read the images and annotations of a config's validation set.

    Args:
        config: config of mmdet with a ``val_dataloader``.

    Yields:
        Images in the order of the dataset.
    """
    with DefaultScope.overwrite_default_scope('mmdet'):
        dataset = DATASETS.build({**config.val_dataloader.dataset, 'lazy_init': False})
    for i in range(len(dataset)):
        info = dataset.get_data_info(i)
        image = np.ascontiguousarray(read_image(info['img_path'])[..., ::-1])
        yield AnnotatedImage(str(info['img_path']), image, info['instances'])


def shuffle_weights(model: nn.Module, seed: int = 0) -> nn.Module:
    """Copy a model with the entries of every weight matrix and kernel in random order.

    The sanity check of Adebayo et al. (2018): a map that stays the same is not about the model.
    Norms and biases stay, so that activations keep their scale.
    """
    shuffled = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in shuffled.parameters():
            if parameter.dim() > 1:
                order = torch.randperm(parameter.numel(), generator=generator)
                values = parameter.flatten()[order.to(parameter.device)]
                parameter.copy_(values.view(parameter.shape))
    return shuffled


def _inside(heat: np.ndarray, detection: Detection) -> np.ndarray:
    """Crop a map to a detection's box: outside, maps of any weights are alike, near zero."""
    left, top = (max(0, int(v)) for v in detection.box[:2])
    right, bottom = (math.ceil(v) for v in detection.box[2:])
    return heat[top:bottom, left:right]


class Evaluation:
    """Rows of measured maps, one per method and detection, in a JSON file that grows by images.

    Args:
        predictor: a detector.
        methods: names of ``mmpaca.explain.METHODS``.
        num_detections: stop after as many.
        per_image: at most as many of an image, those of the highest scores.
        score_thr: lowest score of a detection.
        steps: steps of the deletion and insertion curves.
        out: JSON file. One with the same settings is continued.
        model_name: stored, so that a file of another model is not continued.

    Raises:
        ValueError: the model is no detector, a method is unknown, or ``out`` has other settings.
    """

    def __init__(
        self,
        predictor: Predictor,
        methods: Sequence[str],
        num_detections: int,
        per_image: int,
        score_thr: float,
        steps: int,
        out: Path,
        model_name: str = '',
    ) -> None:
        if predictor.task != 'detection':
            raise ValueError(f'explain-eval measures detectors, this is for {predictor.task}')
        unknown = sorted(set(methods) - set(METHODS))
        if unknown:
            raise ValueError(f'methods {unknown} are unknown, choose from {", ".join(METHODS)}')
        self.predictor = predictor
        self.out = out
        self.settings: dict[str, Any] = dict(
            model=model_name,
            methods=list(methods),
            num_detections=num_detections,
            per_image=per_image,
            score_thr=score_thr,
            steps=steps,
        )
        self.done: list[str] = []
        self.rows: list[dict[str, Any]] = []
        if out.exists():
            self._continue()
        self.shuffled = shuffle_weights(predictor.model)

    def _continue(self) -> None:
        try:
            saved = json.loads(self.out.read_text())
            settings, done, rows = saved['settings'], saved['done'], saved['rows']
        except (ValueError, KeyError, TypeError):
            raise ValueError(f'{self.out} is not a result of explain-eval: give another') from None
        if settings != self.settings:
            raise ValueError(
                f'{self.out} has results of other settings, {settings}: delete it or give another'
            )
        self.done, self.rows = done, rows

    @property
    def num_measured(self) -> int:
        """Number of detections so far."""
        return len({(row['image'], row['detection']) for row in self.rows})

    def run(self, images: Iterator[AnnotatedImage]) -> Iterator[int]:
        """Measure until there are enough detections or no more images.

        Yields:
            The number of detections so far, after every image.
        """
        for number, one in enumerate(images):
            missing = self.settings['num_detections'] - self.num_measured
            if missing <= 0:
                break
            if one.path in self.done:
                continue
            (sample,) = self.predictor.predict([one.image[..., ::-1]])
            shape = one.image.shape[:2]
            threshold, most = (self.settings[key] for key in ('score_thr', 'per_image'))
            found = read_detections(sample, shape, self.predictor.classes, threshold)
            found = found[: min(missing, most)]
            if found:
                self.rows += self._measure(number, one, found)
            self.done.append(one.path)
            saved = dict(settings=self.settings, done=self.done, rows=self.rows)
            write_atomically(self.out, json.dumps(saved).encode())
            yield self.num_measured

    def _measure(self, number: int, one: AnnotatedImage, found: list[Detection]) -> list[dict]:
        subject = Subject(self.predictor.model, one.image)
        noise = np.random.default_rng(number).normal(0, _NOISE, one.image.shape)
        noisy = (one.image + noise).round().clip(0, 255).astype(np.uint8)
        others = {}
        if number % _CHECK_EVERY == 0:
            others['randomised'] = Subject(self.shuffled, one.image)
            others['stability'] = Subject(self.predictor.model, noisy)
        regions = [annotated_region(d, one.instances, one.image.shape[:2]) for d in found]
        rows = []
        for method in self.settings['methods']:
            start = time.perf_counter()
            maps = apply(method, subject, found)
            seconds = (time.perf_counter() - start) / len(found)
            changed = {name: apply(method, other, found) for name, other in others.items()}
            measured = measure(subject, maps, found, regions, self.settings['steps'])
            for i, (detection, values) in enumerate(zip(found, measured, strict=True)):
                row: dict[str, Any] = dict(
                    method=method, image=number, path=one.path, detection=i,
                    label=detection.label, score=detection.score, box=detection.box,
                    seconds=seconds, **values,
                )  # fmt: skip
                for name, other in changed.items():
                    row[name] = rank_correlation(*(_inside(m[i], detection) for m in (maps, other)))
                rows.append(row)
        return rows


def summarise(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, tuple[float, float, float]]]:
    """Mean and 95 % interval of every measure, by method.

    Returns:
        Mean, low and high by method and measure.
    """
    table: dict[str, dict[str, tuple[float, float, float]]] = {}
    for method in dict.fromkeys(row['method'] for row in rows):
        own = [row for row in rows if row['method'] == method]
        groups = [row['image'] for row in own]
        table[method] = {
            measure: bootstrap_interval([row.get(measure, np.nan) for row in own], groups)
            for measure in MEASURES
        }
    return table


def differences(
    rows: Sequence[dict[str, Any]], reference: str = 'paca'
) -> dict[str, dict[str, tuple[float, float, float]]]:
    """Differences of other methods to one on the same detections, with 95 % intervals.

    Returns:
        Mean, low and high of the other's value minus the reference's, by method and measure.
    """
    own = {(r['image'], r['detection']): r for r in rows if r['method'] == reference}
    changed = [
        {
            **row,
            **{
                measure: row.get(measure, np.nan)
                - own[row['image'], row['detection']].get(measure, np.nan)
                for measure in MEASURES
            },
        }
        for row in rows
        if row['method'] != reference and own
    ]
    return summarise(changed)


def format_table(table: dict[str, dict[str, tuple[float, float, float]]]) -> str:
    """Format means with their intervals, a line per method."""
    lines = [' '.join([f'{"":10}', *(f'{name:>24}' for name in MEASURES)])]
    for method, values in table.items():
        cells = (f'{mean:.3f} [{low:.3f}, {high:.3f}]' for mean, low, high in values.values())
        lines.append(' '.join([f'{method:10}', *(f'{cell:>24}' for cell in cells)]))
    return '\n'.join(lines)
