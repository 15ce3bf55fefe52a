"""YOLO: data.yaml or a list of classes, and one text file per image."""

from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from .labels import (
    ImageIndex,
    LabelledImage,
    LabelledObject,
    Labels,
    box_of,
    files_below,
    image_size,
    split_of,
)

_LISTS = ('classes.txt', 'obj.names')
_FIELDS = 'a class number and x, y, width, height (or the corners of a polygon) from 0 to 1'


def find_yolo(root: Path) -> list[Path]:
    """Return the files with class names: ``data.yaml``, or else ``classes.txt`` or ``obj.names``."""
    found = [path for path in files_below(root, '.yaml', '.yml') if 'names' in _load(path)]
    return found or [path for path in files_below(root, '.txt', '.names') if path.name in _LISTS]


def _load(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError):
        return {}
    return content if isinstance(content, dict) else {}


def read_yolo(root: Path, files: list[Path]) -> Labels:
    """Read boxes and polygons in YOLO's format.

    With ``data.yaml``, its ``train`` and ``val`` (folders, or text files that list images) are read.
    Without, all images below the folder that have a text file. An image without a text file, or
    with an empty one, is background where data.yaml lists it.

    Args:
        root: folder of images and labels.
        files: the files with class names.

    Raises:
        ValueError: names the file, the line and what is invalid in it.
    """
    if len(files) > 1:
        names = ', '.join(map(str, files))
        raise ValueError(
            f'{len(files)} files have class names: {names}; keep one, or give --data a subfolder'
        )
    (file,) = files
    if file.suffix in ('.yaml', '.yml'):
        content = _load(file)
        names = content['names']
        classes = [str(names[k]) for k in sorted(names)] if isinstance(names, dict) else names
        classes = [str(name) for name in classes]
        splits = {split: _listed(content, split, file) for split in ('train', 'val')}
        if not splits['train']:
            raise ValueError(f'{file}: train is missing or has no images: name a folder of images')
        pairs = [(path, split) for split, paths in splits.items() for path in paths]
        background = True
    else:
        classes = [line.strip() for line in file.read_text().splitlines() if line.strip()]
        pairs = [(p, split_of(p.relative_to(root).parent)) for p in ImageIndex(root).paths]
        background = False
    images = []
    without = 0
    for path, split in pairs:
        text = _label_file(path)
        without += not text.is_file()
        if text.is_file() or background:
            size = image_size(path)
            objects = _read_objects(text, classes, size) if text.is_file() else []
            images.append(LabelledImage(path, size, objects, split))
    if pairs and without == len(pairs):
        raise ValueError(
            f'{root}: no image has labels, the first would be {_label_file(pairs[0][0])}: YOLO keeps '
            "them in a folder 'labels' beside 'images', or beside the images"
        )
    done = 'used as background' if background else 'left out'
    notes = [f'{without} images have no text file; they are {done}'] if without else []
    return Labels('yolo', classes, images, notes)


def _listed(content: dict[str, Any], split: str, file: Path) -> list[Path]:
    """Return the images of a split of data.yaml."""
    entries = content.get(split) or []
    found: list[Path] = []
    for entry in [entries] if isinstance(entries, str) else entries:
        roots = [file.parent / str(content.get('path') or '.'), file.parent]
        # Roboflow's exports begin with a '../' too many.
        names = [entry, entry.removeprefix('../')]
        places = [root / name for root in roots for name in names]
        place = next((place for place in places if place.exists()), None)
        if place is None:
            raise ValueError(f'{file}: {split}: {entry} does not exist: correct the path')
        if place.is_dir():
            found += ImageIndex(place).paths
        else:
            lines = [line.strip() for line in place.read_text().splitlines() if line.strip()]
            found += [place.parent / line for line in lines]
    missing = [path for path in found if not path.is_file()]
    if missing:
        raise ValueError(
            f'{file}: {len(missing)} images of {split} do not exist, first {missing[0]}'
        )
    return found


def _label_file(image: Path) -> Path:
    """Return the text file of an image: in ``labels`` instead of the last ``images``, or beside it."""
    beside = image.with_suffix('.txt')
    folders = beside.parts[:-1]
    if 'images' not in folders:
        return beside
    last = len(folders) - 1 - folders[::-1].index('images')
    mirrored = Path(*folders[:last], 'labels', *folders[last + 1 :], beside.name)
    return beside if beside.is_file() and not mirrored.is_file() else mirrored


def _read_objects(file: Path, classes: list[str], size: tuple[int, int]) -> list[LabelledObject]:
    objects = []
    for number, line in enumerate(file.read_text().splitlines(), start=1):
        if not line.strip():
            continue
        try:
            label, *values = (float(word) for word in line.split())
        except ValueError:
            label, values = -1.0, []
        polygon = len(values) >= 6 and len(values) % 2 == 0
        in_range = all(-0.1 <= value <= 1.1 for value in values)
        if label < 0 or label != int(label) or not (len(values) == 4 or polygon) or not in_range:
            raise ValueError(f'{file}, line {number}: {line.strip()[:60]!r} is invalid: {_FIELDS}')
        if label >= len(classes):
            raise ValueError(
                f'{file}, line {number}: class {int(label)} is unknown, there are '
                f'{len(classes)} names: add its name, numbers count from 0'
            )
        name = classes[int(label)]
        height, width = size
        if polygon:
            points = [v * (height if i % 2 else width) for i, v in enumerate(values)]
            objects.append(LabelledObject(name, box_of(points), [points]))
            continue
        x, y, w, h = values
        box = ((x - w / 2) * width, (y - h / 2) * height, w * width, h * height)
        objects.append(LabelledObject(name, box))
    return objects
