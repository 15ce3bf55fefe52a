"""COCO: JSON files with lists of images, annotations and categories."""

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmpaca.datasets.coco_categories import check_categories

from .labels import ImageIndex, LabelledImage, LabelledObject, Labels, check_missing, split_of


def is_coco(content: Any) -> bool:
    """Return True for the content of a COCO file with objects."""
    lists = ('images', 'annotations', 'categories')
    return isinstance(content, dict) and all(isinstance(content.get(k), list) for k in lists)


def read_coco(root: Path, files: list[Path]) -> Labels:
    """Read COCO's files; broken entries are left in for ``check-data`` to report.

    The names of files and folders split them, e.g. ``instances_train2017.json``.

    Args:
        root: folder of images and labels.
        files: the JSON files.

    Raises:
        ValueError: two files are of the same split, a file is invalid, or too many images are
            missing.
    """
    of_split: dict[str, Path] = {}
    for file in files:
        split = split_of(file.relative_to(root))
        if split in of_split:
            which = f'the split {split}' if split else 'no split'
            raise ValueError(
                f'{of_split[split]} and {file} name {which}: keep one of them below {root}, or name '
                'them train.json and val.json'
            )
        of_split[split] = file
    if '' in of_split and len(of_split) > 1:
        raise ValueError(f'{of_split[""]} names no split beside others: remove or rename it')
    index = ImageIndex(root)
    images: list[LabelledImage] = []
    missing: list[str] = []
    classes: list[str] = []
    total = 0
    for split, file in of_split.items():
        content = json.loads(file.read_text())
        try:
            check_categories(content['categories'])
        except ValueError as error:
            raise ValueError(f'{file}: {error}') from None
        classes += [category['name'] for category in content['categories']]
        total += len(content['images'])
        images += _read(content, file, split, index, missing)
    return Labels('coco', list(dict.fromkeys(classes)), images, check_missing(missing, total, root))


def _read(
    content: dict, file: Path, split: str, index: ImageIndex, missing: list[str]
) -> Iterator[LabelledImage]:
    names = {category['id']: category['name'] for category in content['categories']}
    objects = defaultdict(list)
    for place, one in enumerate(content['annotations']):
        try:
            name, (left, top, width, height) = names[one['category_id']], one['bbox']
            box = (float(left), float(top), float(width), float(height))
        except (KeyError, TypeError, ValueError):
            raise ValueError(
                f'{file}: annotation no. {place} has no known category or no box: run '
                f'mmpaca check-data {file} IMG_DIR --fix OUT'
            ) from None
        segmentation = one.get('segmentation') or None
        objects[one.get('image_id')].append(
            LabelledObject(name, box, segmentation, bool(one.get('iscrowd')))
        )
    for image in content['images']:
        path = index.find(str(image.get('file_name')), file)
        if path is None:
            missing.append(str(image.get('file_name')))
            continue
        size = (image.get('height'), image.get('width'))
        yield LabelledImage(path, size, objects[image.get('id')], split)
