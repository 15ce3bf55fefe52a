"""Labels of any format as COCO files for training and validation."""

import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mmpaca.apis.check_data import check_data
from mmpaca.checkpoint.saving import write_atomically
from mmpaca.datasets.formats import LabelledImage, Labels, read_labels

from .splitting import split_randomly

TASKS = ('detect', 'instance')


@dataclass(frozen=True)
class PreparedData:
    """A dataset in COCO's format.

    Attributes:
        format: format of the labels that were read.
        root: folder that the file names in the annotations are relative to.
        ann_dir: folder of ``train.json`` and ``val.json``.
        classes: class names.
        task: one of :data:`TASKS`.
        notes: sentences about what was decided or left out.
    """

    format: str
    root: Path
    ann_dir: Path
    classes: tuple[str, ...]
    task: str
    notes: tuple[str, ...]


def prepare_data(
    data: str | Path, ann_dir: Path, format: str | None = None, task: str | None = None
) -> PreparedData:
    """Read labels, split them, write them in COCO's format and drop what is broken.

    Nothing is written below ``data`` (unless ``ann_dir`` is there).

    Args:
        data: folder of images and labels.
        ann_dir: folder for ``train.json`` and ``val.json``.
        format: name in :data:`mmpaca.datasets.formats.FORMATS`; None to recognise it.
        task: one of :data:`TASKS`; None for instances if all objects have a mask.

    Raises:
        ValueError: names what is wrong with the data, and the remedy.
    """
    labels = read_labels(Path(data).absolute(), format)
    notes = list(labels.notes)
    parts = _split(labels, notes)
    classes = _classes(labels, parts, notes)
    task = _task(parts, task, notes)
    root = Path(
        os.path.commonpath(
            [Path(data).absolute(), *(p.path.parent for p in parts['train'] + parts['val'])]
        )
    )
    ann_dir.mkdir(parents=True, exist_ok=True)
    for split, images in parts.items():
        path = ann_dir / f'{split}.json'
        content = to_coco(images, classes, root, with_mask=task == 'instance')
        write_atomically(path, json.dumps(content).encode())
        # Prints what is broken; the file is written again without it.
        broken = check_data(
            path, root, fix=path, boxes_only=task == 'detect', workers=os.cpu_count() or 1
        )
        if broken:
            notes.append(f'{broken} broken entries of {split} (listed above) are left out')
        _check_left(path)
    return PreparedData(labels.format, root, ann_dir, classes, task, tuple(notes))


def _split(labels: Labels, notes: list[str]) -> dict[str, list[LabelledImage]]:
    parts: dict[str, list[LabelledImage]] = dict(train=[], val=[])
    test = [image for image in labels.images if image.split == 'test']
    if test:
        notes.append(
            f'{len(test)} test images are left out: they are for a test after all training'
        )
    rest = [image for image in labels.images if image.split != 'test']
    unnamed = [image for image in rest if not image.split]
    named = {image.split for image in rest} - {''}
    if named == {'train', 'val'}:
        for image in rest:
            if image.split:
                parts[image.split].append(image)
        if unnamed:
            notes.append(
                f'{len(unnamed)} images belong neither to train nor to val; they are left out'
            )
        shared = {image.path for image in parts['train']} & {image.path for image in parts['val']}
        if shared:
            notes.append(
                f'{len(shared)} of {len(parts["val"])} val images are also train images: their AP '
                'says nothing about other images'
            )
        return parts
    chosen, how = split_randomly([image.path for image in rest])
    for image in rest:
        parts['val' if image.path in chosen else 'train'].append(image)
    notes.append(how)
    return parts


def _classes(
    labels: Labels, parts: dict[str, list[LabelledImage]], notes: list[str]
) -> tuple[str, ...]:
    """Return the classes with objects in training; drop the objects of other classes."""
    counts = {s: Counter(o.name for i in images for o in i.objects) for s, images in parts.items()}
    classes = tuple(name for name in labels.classes if counts['train'][name])
    if not classes:
        raise ValueError(
            'no image of the train split has objects: label some, or move images there'
        )
    if not counts['val']:
        raise ValueError('no image of the val split has objects: label some, or move images there')
    unused = [name for name in labels.classes if not counts['train'][name]]
    if unused:
        notes.append(
            f'{len(unused)} classes without objects in training are left out: {shortened(unused)}'
        )
    lost = {name: counts['val'][name] for name in unused if counts['val'][name]}
    for name, number in lost.items():
        notes.append(
            f'{number} val objects of class {name}, which has none in training, are left out'
        )
    absent = [name for name in classes if not counts['val'][name]]
    if absent:
        notes.append(f'val has no object of {shortened(absent)}: they have no AP')
    for split, images in parts.items():
        parts[split] = [
            replace(image, objects=[one for one in image.objects if one.name in classes])
            for image in images
        ]
    return classes


def shortened(names: Sequence[str], limit: int = 8) -> str:
    """Join names, at most ``limit`` of them."""
    more = f' and {len(names) - limit} more' if len(names) > limit else ''
    return ', '.join(names[:limit]) + more


def _task(parts: dict[str, list[LabelledImage]], task: str | None, notes: list[str]) -> str:
    objects = [one for images in parts.values() for image in images for one in image.objects]
    masks = sum(has_mask(one.segmentation, one.bbox) for one in objects)
    if task == 'instance' and masks < len(objects):
        raise ValueError(
            f'--task instance: {len(objects) - masks} of {len(objects)} objects have no mask; '
            'draw their outlines, or give --task detect'
        )
    if task is None and 0 < masks < len(objects):
        notes.append(
            f'{masks} of {len(objects)} objects have a mask: boxes are detected, as all have one'
        )
    return task or ('instance' if masks == len(objects) else 'detect')


def has_mask(segmentation: list | dict | None, bbox: tuple[float, float, float, float]) -> bool:
    """Return False also for the outline of the box, which some tools write for boxes."""
    if not segmentation or isinstance(segmentation, dict) or len(segmentation) > 1:
        return bool(segmentation)
    points = segmentation[0]
    if not isinstance(points, list) or len(points) not in (8, 10):
        return True
    left, top, width, height = bbox
    corners = {(round(x), round(y)) for x, y in zip(points[::2], points[1::2], strict=True)}
    edges = [(x, y) for x in (left, left + width) for y in (top, top + height)]
    return corners != {(round(x), round(y)) for x, y in edges}


def to_coco(
    images: Sequence[LabelledImage], classes: Sequence[str], root: Path, with_mask: bool
) -> dict:
    """Convert labelled images to the content of a COCO file.

    Args:
        images: all with classes among ``classes``.
        classes: class names; ids count from 1 in their order.
        root: folder that file names are relative to.
        with_mask: write segmentations; ``area`` is then left to pycocotools, else it is the box's.
    """
    ids = {name: number for number, name in enumerate(classes, start=1)}
    content: dict = dict(images=[], annotations=[])
    for image_id, image in enumerate(images, start=1):
        height, width = image.size
        content['images'].append(
            dict(
                id=image_id,
                file_name=image.path.relative_to(root).as_posix(),
                height=height,
                width=width,
            )
        )
        for one in image.objects:
            annotation: dict = dict(
                id=len(content['annotations']) + 1,
                image_id=image_id,
                category_id=ids[one.name],
                bbox=list(one.bbox),
                area=_area(one.segmentation, image.size)
                if with_mask
                else one.bbox[2] * one.bbox[3],
                iscrowd=int(one.ignored),
            )
            if with_mask:
                annotation['segmentation'] = one.segmentation
            content['annotations'].append(annotation)
    content['categories'] = [dict(id=number, name=name) for name, number in ids.items()]
    return content


def _area(segmentation: list | dict | None, size: tuple[int, int]) -> float | None:
    """Return the area of a mask in pixels; None if it is invalid, which ``check_data`` reports."""
    from pycocotools import mask as coco_mask

    try:
        if isinstance(segmentation, list):
            segmentation = coco_mask.merge(coco_mask.frPyObjects(segmentation, *size))
        elif segmentation and isinstance(segmentation['counts'], list):
            segmentation = coco_mask.frPyObjects(segmentation, *size)
        return float(coco_mask.area(segmentation))
    except Exception:  # pycocotools raises anything on invalid masks
        return None


def _check_left(path: Path) -> None:
    content = json.loads(path.read_bytes())
    if not content['images'] or not content['annotations']:
        raise ValueError(f'{path}: all images or annotations are broken, nothing is left')
