"""Pictures and a page of clusters for image files: the function behind ``mmpaca clusters``."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import mmcv
import numpy as np
from mmengine.config import Config
from mmengine.structures import BaseDataElement

from mmpaca.datasets.images import check_images, find_images, read_image
from mmpaca.explain.attribution import apply
from mmpaca.explain.html_page import Page
from mmpaca.explain.perturbation import deletion_insertion
from mmpaca.explain.recorder import Recording, record
from mmpaca.explain.scene import Scene
from mmpaca.explain.sheets import all_sheets
from mmpaca.explain.subject import Subject

from .configs import find_checkpoint, find_config
from .inference import Predictor
from .prediction import track

_MAX_SIDE = 2048  # a detector makes 100 masks of the image's size
_ATTRIBUTED = 25  # detections of an image, the surest; each takes a backward pass


def page(
    images: str | Path | Sequence[str | Path],
    config: str | Path | Config,
    checkpoint: str | Path,
    out_dir: str | Path,
    *,
    device: str | None = None,
    score_thr: float = 0.3,
    stages: Sequence[int] | None = None,
    all_blocks: bool = False,
    num_clusters: int = 9,
    map_cells: int = 48,
    compare: str | Path | None = None,
    curves: int = 0,
) -> Path:
    """Draw the clusters of images, and write an interactive page.

    Writes ``index.html``, and for each image a folder ``NNN_NAME`` with ``detections.jpg``,
    ``stageI_blockJ.jpg`` (clusters) and ``looked_at_K.jpg`` (what decided each
    detection, or each region of a segmentor's classes). Of a PaCaSegHead there is ``head.jpg``: its clusters
    are the classes. Many images get a page each, ``pages/NNN.html``, and ``index.html`` is a gallery
    that links to them.
    Images with a side of more than 2048 pixels are scaled down to that first. What decided is
    computed for the 25 surest detections of an image.

    Args:
        images: image files, folders and globs.
        config: config of mmdet, mmpretrain or mmseg with a PaCaViT: a path, a name that
            ``mmpaca configs`` lists, or a Config.
        checkpoint: path or URL of its weights.
        out_dir: output folder.
        device: e.g. ``'cuda:0'``; None for the GPU if there is one.
        score_thr: lowest score of a detection.
        stages: stages to show, from 1; None for all that have clusters.
        all_blocks: show every block of a stage instead of the last one.
        num_clusters: heat maps per stage.
        map_cells: longer side of a map on the page; larger ones are reduced.
        compare: path or URL of other weights of the same config, shown beside the first ones on
            the page. Pictures are drawn of the first ones.
        curves: number of detections of an image, the surest, whose score is followed while relevant
            pixels are removed and shown; 66 predictions each.

    Returns:
        Path of ``index.html``.

    Raises:
        FileNotFoundError: an input, the config or the checkpoint does not exist.
        ValueError: an image cannot be decoded, the model has no PaCaViT, a stage no clusters,
            ``compare`` is the checkpoint itself, or ``score_thr`` is not in 0..1.
        RuntimeError: the checkpoint matches the model only in part.

    Example:
        >>> import mmpaca
        >>> mmpaca.explain.page(
        ...     'photos/', 'mask_rcnn_paca', 'epoch_12.pth', 'clusters'
        ... )  # doctest: +SKIP
    """
    if not 0 <= score_thr <= 1:  # NaN is not, either
        raise ValueError(f'score_thr={score_thr} must be in 0..1')
    paths = find_images([images] if isinstance(images, str | Path) else images)
    check_images(paths)
    if not isinstance(config, Config):
        config = find_config(str(config))
        checkpoint = find_checkpoint(str(checkpoint), config)
        compare = compare and find_checkpoint(str(compare), config)
    if compare is not None and str(compare) == str(checkpoint):
        raise ValueError(f'compare={compare} is the checkpoint itself: give other weights')
    checkpoints = [checkpoint] if compare is None else [checkpoint, compare]
    predictors = [Predictor(config, one, device) for one in checkpoints]
    out_dir = Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    with (
        ExitStack() as stack,
        Page(out_dir / 'index.html', map_cells) as html,
    ):
        models = {
            name: stack.enter_context(_recorded(predictor, score_thr, all_blocks, curves))
            for name, predictor in zip(_model_names(checkpoints), predictors, strict=True)
        }
        # A number before each name: two folders may have images of one name.
        for number, path in enumerate(track(paths, len(paths), 'Clusters'), start=1):
            image = _fitting(read_image(path))
            explained = {name: model.explain(image) for name, model in models.items()}
            scenes = {name: scene.only_stages(stages) for name, (_, scene) in explained.items()}
            sample, _ = next(iter(explained.values()))
            scene = next(iter(scenes.values()))
            folder = out_dir / f'{number:03d}_{path.stem}'
            drawn = predictors[0].draw(image[..., ::-1], sample, score_thr)
            for name, picture in [('detections', drawn), *all_sheets(scene, num_clusters)]:
                mmcv.imwrite(picture[..., ::-1], str(folder / f'{name}.jpg'))
            html.add(path.name, scenes)
    return html.path


@dataclass
class _Model:
    """A predictor whose clusters are recorded."""

    predictor: Predictor
    recording: Recording
    score_thr: float
    all_blocks: bool
    curves: int

    def explain(self, image: np.ndarray) -> tuple[BaseDataElement, Scene]:
        """Predict an image, (height, width, 3) uint8 BGR, and collect what is to be seen."""
        (sample,) = self.predictor.predict([image])
        image = image[..., ::-1]  # BGR -> RGB
        classes = self.predictor.classes
        scene = Scene.from_sample(
            image, sample, self.recording, 0, classes, self.score_thr, self.all_blocks
        )
        # Afterwards: it computes the features anew, which the recording would have instead.
        try:
            subject = Subject(self.predictor.model, image)
            scene.attribution = apply('paca', subject, scene.detections[:_ATTRIBUTED])
        except ValueError as error:
            warnings.warn(f'the page shows attention alone: {error}', stacklevel=2)
        else:
            found = zip(scene.detections[: self.curves], scene.attribution, strict=False)
            for detection, heat in found:
                deleted, inserted = deletion_insertion(subject, heat, detection)
                detection.curves = deleted.round(3).tolist(), inserted.round(3).tolist()
        return sample, scene


@contextmanager
def _recorded(
    predictor: Predictor, score_thr: float, all_blocks: bool, curves: int
) -> Iterator[_Model]:
    with record(predictor.model, 'all' if all_blocks else 'last') as recording:
        yield _Model(predictor, recording, score_thr, all_blocks, curves)


def _model_names(checkpoints: Sequence[str | Path]) -> list[str]:
    """Name weights by their files, and by their folders where those have one name."""
    paths = [Path(checkpoint) for checkpoint in checkpoints]
    if len(paths) == 1:
        return ['']
    if len({path.name for path in paths}) == len(paths):
        return [path.name for path in paths]
    return [str(path) for path in paths]


def _fitting(image: np.ndarray) -> np.ndarray:
    """Scale an image down where its longer side exceeds the limit."""
    longer = max(image.shape[:2])
    return image if longer <= _MAX_SIDE else mmcv.imrescale(image, _MAX_SIDE / longer)
