"""The folder of a training on own data: labels, config, run, pictures."""

import json
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from mmengine.config import Config

from mmpaca.apis.clusters import page
from mmpaca.apis.configs import read_file
from mmpaca.apis.devices import find_device
from mmpaca.apis.inference import Predictor
from mmpaca.apis.outputs import check_out_dir
from mmpaca.apis.prediction import predict_files

from .config_text import write_config
from .prepare import prepare_data
from .recipe import Decision, Recipe, decide
from .statistics import measure_data
from .timing import measure_seconds

ARCHS = ('nano', 'micro')
_STARTUP = 30  # seconds of a run before its first iteration
_MIN_ITERS = 200  # a detector from random weights has learned little before
_SHRINK = (1.0, 0.5, 0.25)  # of the resolution, until that many fit into the minutes
_SHOWN, _EXPLAINED = 12, 4  # validation images that are drawn


@dataclass(frozen=True)
class Project:
    """Files of a training on own data, all below one folder.

    Attributes:
        folder: the folder.
        config: the config to edit.
    """

    folder: Path
    config: Path

    @property
    def work_dir(self) -> Path:
        """Checkpoints and logs."""
        return self.folder / 'train'


def create_project(
    data: str | Path,
    folder: str | Path | None = None,
    *,
    minutes: float = 30,
    task: str | None = None,
    arch: str = 'micro',
    format: str | None = None,
    top_view: bool = False,
) -> Project:
    """Read and check the data, decide on a recipe and write its config.

    Args:
        data: folder of images and labels; nothing is written there.
        folder: folder to create; None for ``work_dirs/NAME``.
        minutes: length of the training on this machine.
        task: ``'detect'`` or ``'instance'``; None for instances if all objects have a mask.
        arch: ``'nano'`` or ``'micro'``.
        format: name in :data:`mmpaca.datasets.formats.FORMATS`; None to recognise it.
        top_view: images have no up and down (microscope, aerial).

    Raises:
        ValueError: names what is wrong with the data or an argument, and the remedy.
    """
    name = Path(data).absolute().name or 'data'
    project_dir = check_out_dir(Path('work_dirs', name) if folder is None else folder, '--work-dir')
    project = Project(project_dir.absolute(), project_dir.absolute() / f'{name}.py')
    if project.config.exists():
        raise ValueError(
            f'{project.config} exists: train it with `mmpaca train {project.config}`, or give '
            'another --work-dir'
        )
    prepared = prepare_data(data, project.folder / 'annotations', format, task)
    found = measure_data(prepared)
    device = find_device().partition(':')[0]

    def write(recipe: Recipe, length: Decision, val_interval: Decision) -> Config:
        parts = (project.config, prepared, found, recipe, length, val_interval, project.work_dir)
        write_config(*parts)
        return read_file(str(project.config))

    recipes: dict[float, Recipe] = {}
    for shrink in _SHRINK:
        recipe = decide(found, prepared.task, arch, device, top_view, shrink)
        recipes.setdefault(recipe.resolution, recipe)  # small images stay as they are
    unmeasured = Decision(1, 'To be measured')
    typical = max(1, round(float(found.per_image.mean())))
    try:
        for recipe in recipes.values():
            seconds = measure_seconds(write(recipe, unmeasured, unmeasured), typical)
            length, val_interval = plan(seconds, minutes, found.num_images['val'])
            if length.value >= _MIN_ITERS:
                break
        write(recipe, length, val_interval)
    except BaseException:
        project.config.unlink(missing_ok=True)  # it is not complete
        raise
    return project


def plan(seconds: tuple[float, float], minutes: float, num_val: int) -> tuple[Decision, Decision]:
    """Fit iterations and evaluations into minutes.

    Args:
        seconds: of an iteration, and of a validation image.
        minutes: of the entire run.
        num_val: validation images.

    Returns:
        Number of iterations, and iterations between evaluations.
    """
    iteration, image = seconds
    validation = num_val * image
    # Twice, at half of the run and at its end, if that is less than a fifth of the time.
    times = 2 if 2 * validation < 0.2 * 60 * minutes else 1
    left = 60 * minutes - _STARTUP - times * validation
    length = max(10, int(left / iteration))
    why = (
        f'--minutes {minutes:g}: {iteration:.2f} s an iteration, as measured here, and '
        f'{times * validation:.0f} s for evaluation'
    )
    if length < _MIN_ITERS:
        why += f'. Fewer than {_MIN_ITERS} iterations learn little: give more --minutes'
    interval = -(-length // times)
    spoken = {1: 'at the end', 2: 'halfway and at the end'}[times]
    return Decision(length, why), Decision(interval, f'evaluation {spoken}')


def describe(project: Project) -> str:
    """Return the config's decisions as they stand there, for the terminal."""
    text = project.config.read_text()
    return text.partition('\nmodel = dict(')[0]


def show_results(project: Project) -> str:
    """Predict validation images with the trained detector and draw its clusters.

    Writes ``pictures/vis/*.jpg`` and ``clusters/index.html``.

    Returns:
        Lines that say what was reached, where everything lies and what to do next.

    Raises:
        FileNotFoundError: there is no checkpoint.
    """
    config = read_file(str(project.config))
    checkpoint = (project.work_dir / 'last_checkpoint').read_text().strip()
    images = _val_images(config)
    predictor = Predictor(config, checkpoint)
    pictures, clusters = project.folder / 'pictures', project.folder / 'clusters'
    predict_files(predictor, images[:_SHOWN], pictures, score_thr=0.5)
    html = page(images[:_EXPLAINED], config, checkpoint, clusters, score_thr=0.5)
    return '\n'.join(
        [
            f'reached on {len(images)} validation images: {_reached(project.work_dir)}',
            f'config            {project.config}',
            f'labels            {project.folder / "annotations"}',
            f'checkpoint        {checkpoint}',
            f'pictures          {pictures / "vis"}',
            f'cluster page      {html}',
            'next:',
            f'  mmpaca predict {quote(str(project.config))} {quote(checkpoint)} IMAGES',
            f'  mmpaca train {quote(str(project.config))}  # again, after editing it',
        ]
    )


def _val_images(config: Config) -> list[Path]:
    dataset = config.val_dataloader.dataset
    coco = json.loads(Path(dataset.ann_file).read_bytes())
    return [Path(dataset.data_root, image['file_name']) for image in coco['images']]


def _reached(work_dir: Path) -> str:
    """Return the last evaluation's box and mask AP from the newest log."""
    logs = sorted(work_dir.glob('*/vis_data/scalars.json'))
    lines = [json.loads(line) for line in logs[-1].read_text().splitlines()] if logs else []
    found: dict = next((line for line in reversed(lines) if 'coco/bbox_mAP' in line), {})
    names = {f'coco/{kind}_mAP{at}': f'{word} AP{at.strip("_")}'
             for kind, word in (('bbox', 'box'), ('segm', 'mask')) for at in ('', '_50')}  # fmt: skip
    reached = ', '.join(f'{name} {found[key]:.3f}' for key, name in names.items() if key in found)
    # The last metric of a run with masks is theirs.
    of_class = [f'{key[5:-10]} {found[key]:.3f}' for key in found if key.endswith('_precision')]
    return f'{reached} ({"mask" if "coco/segm_mAP" in found else "box"} AP by class: {", ".join(of_class)})'
