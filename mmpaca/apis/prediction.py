"""Predict files and write the results: the function behind ``mmpaca predict``."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from .frames import Frame, count_frames, find_sources, read_frames
from .inference import Predictor
from .results import ResultWriter
from .slicing import SlicedPredictor

T = TypeVar('T')


def predict_files(
    predictor: Predictor | SlicedPredictor,
    inputs: Sequence[str | Path],
    out_dir: str | Path,
    *,
    score_thr: float = 0.3,
    batch_size: int = 1,
    save_vis: bool = True,
    save_pred: bool = True,
    info: dict[str, Any] | None = None,
) -> tuple[int, list[str]]:
    """Predict images and videos; memory does not grow with their number.

    Args:
        predictor: the model, in whole images or in slices.
        inputs: image files, videos, folders and globs.
        out_dir: output folder, see :class:`~mmpaca.apis.results.ResultWriter`.
        score_thr: lowest score of a detection that is drawn; the JSON files contain all.
        batch_size: images in a batch.
        save_vis: write pictures.
        save_pred: write JSON files.
        info: entry ``info`` of the COCO file.

    Returns:
        Number of images (and frames) that were predicted, and a message for each file that could
        not be read.

    Raises:
        ValueError: ``score_thr`` is not in 0..1.
        FileNotFoundError: an input has no match.
        OSError: an output cannot be written.
    """
    if not 0 <= score_thr <= 1:  # NaN is not, either
        raise ValueError(f'score_thr={score_thr} must be in 0..1')
    sources = find_sources(inputs)
    broken: list[str] = []
    done = 0
    frames = track(read_frames(sources, broken), count_frames(sources), 'Inference')
    classes = predictor.classes if predictor.task == 'detection' else None
    with ResultWriter(out_dir, classes, info or {}) as writer:
        for batch in batched(_of_fitting_size(frames, predictor, broken), batch_size):
            samples = predictor.predict([frame.image for frame in batch])
            for frame, sample in zip(batch, samples, strict=True):
                image = frame.image[..., ::-1]  # BGR -> RGB
                picture = predictor.draw(image, sample, score_thr) if save_vis else None
                result = predictor.to_dict(sample) if save_pred else None
                writer.add(frame, result, picture)
                done += 1
    return done, broken


def _of_fitting_size(
    frames: Iterable[Frame], predictor: Predictor | SlicedPredictor, broken: list[str]
) -> Iterator[Frame]:
    """Leave out images that are too large for the model; a message for each goes to ``broken``."""
    for frame in frames:
        try:
            predictor.check_size(*frame.image.shape[:2])
        except ValueError as error:
            broken.append(f'{frame.file_name} {error}')
        else:
            yield frame


def track(items: Iterable[T], total: int, description: str) -> Iterator[T]:
    """Show a progress bar while items are consumed, if the output is a terminal."""
    console = Console()
    columns = (
        TextColumn('{task.description}'),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        yield from progress.track(items, total=total, description=description)


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Split items into lists of a size; the last one may be shorter."""
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, size)):
        yield batch
