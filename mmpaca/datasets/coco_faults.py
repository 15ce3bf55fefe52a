"""What can be wrong in a COCO annotation file, and the file without it."""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

# What is wrong -> what becomes of it: the annotation or the image is left out, or it stays.
FAULTS = {
    'image: id missing or duplicate': 'image',
    'image: no file name or size': 'image',
    'id missing or duplicate': 'annotation',
    'unknown image': 'annotation',
    'unknown category': 'annotation',
    'box: missing, or not four finite numbers': 'annotation',
    'box: narrower than a pixel': 'annotation',
    'box: outside of the image': 'annotation',
    'segmentation: empty': 'annotation',
    'segmentation: not finite': 'annotation',
    'segmentation: less than three points': 'annotation',
    'segmentation: RLE of another size': 'annotation',
    'area: zero or negative': 'annotation',
    'area: missing or not finite': 'area of the box',
    'box: partly outside of the image': 'stays',
    'segmentation: crosses itself': 'stays',
    'image: cannot be loaded': 'image',
    'image: turned by EXIF, annotated as it is stored': 'stays',
    'image: no annotations': 'stays',
    'image: only crowds': 'stays',
}


REMEDY = {
    'image': 'image left out',
    'annotation': 'annotation left out',
    'area of the box': "the box's area is taken",
    'stays': 'stays',
}

# What an annotation says of it.
_VALUE = {'unknown image': 'image_id', 'unknown category': 'category_id'}


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong."""

    kind: str  # of FAULTS
    file_name: str  # of the image, '?' where unknown
    annotation: int | None = None  # its place in the list of annotations
    image: int | None = None  # its place in the list of images
    detail: str = ''  # the value that is wrong, or what the decoder said

    def __str__(self) -> str:
        where = '' if self.annotation is None else f', annotation no. {self.annotation}'
        return f'{self.file_name}{where}: {self.kind}{self.detail and f" ({self.detail})"}'


def find_faults(coco: dict, with_mask: bool = True, thorough: bool = True) -> Iterator[Fault]:
    """Look through a COCO annotation file.

    Args:
        coco: its content.
        with_mask: segmentations are needed.
        thorough: look for what does not hurt training, too (``'stays'`` in :data:`FAULTS`).

    Raises:
        ValueError: a list of it is missing or empty, or the id or name of a category is.
    """
    _check_structure(coco)
    images: dict = {}
    for place, image in enumerate(coco['images']):
        name = str(image.get('file_name', '?'))
        if image.get('id') is None or image['id'] in images:
            yield Fault('image: id missing or duplicate', name, image=place)
        elif name == '?' or not _is_positive(image.get('width'), image.get('height')):
            yield Fault('image: no file name or size', name, image=place)
        else:
            images[image['id']] = image
    categories = {category['id'] for category in coco['categories']}
    seen: set = set()
    content: dict = {image_id: [] for image_id in images}
    for place, annotation in enumerate(coco['annotations']):
        image = images.get(annotation.get('image_id'))
        name = '?' if image is None else image['file_name']
        kinds = list(_annotation_faults(annotation, image, categories, seen, with_mask))
        if image is not None and not any(FAULTS[kind] == 'annotation' for kind in kinds):
            content[image['id']].append(bool(annotation.get('iscrowd')))
            if thorough:
                kinds += _harmless_faults(annotation, image)
        for kind in kinds:
            # With quotes: most often it is text where the file has numbers.
            detail = repr(annotation.get(_VALUE[kind])) if kind in _VALUE else ''
            yield Fault(kind, name, annotation=place, detail=detail)
        seen.add(annotation.get('id'))
    if thorough:
        for image_id, crowds in content.items():
            if not crowds:
                yield Fault('image: no annotations', images[image_id]['file_name'])
            elif all(crowds):
                yield Fault('image: only crowds', images[image_id]['file_name'])


def without_faults(coco: dict, faults: list[Fault]) -> dict:
    """A copy of a COCO annotation file with what :data:`FAULTS` says left out or mended."""

    def places(remedy: str) -> set[int | None]:
        found = [fault for fault in faults if FAULTS[fault.kind] == remedy]
        return {fault.image if remedy == 'image' else fault.annotation for fault in found}

    no_image, out, no_area = map(places, ('image', 'annotation', 'area of the box'))
    images = [image for place, image in enumerate(coco['images']) if place not in no_image]
    kept = {image['id'] for image in images}
    annotations = []
    for place, annotation in enumerate(coco['annotations']):
        if place in out or annotation['image_id'] not in kept:
            continue
        if place in no_area:
            width, height = annotation['bbox'][2:]
            annotation = {**annotation, 'area': width * height}
        annotations.append(annotation)
    return {**coco, 'images': images, 'annotations': annotations}


def count(faults: list[Fault]) -> list[tuple[str, int, str, str]]:
    """Rows of a table: what, how many, what becomes of it, the first file."""
    numbers = Counter(fault.kind for fault in faults)
    first: dict[str, str] = {}
    for fault in faults:
        first.setdefault(fault.kind, fault.file_name)
    return [
        (kind, numbers[kind], REMEDY[FAULTS[kind]], first[kind]) for kind in FAULTS if numbers[kind]
    ]


def _check_structure(coco: Any) -> None:
    """Refuse what cannot be mended by leaving out a part."""
    for key in ('images', 'annotations', 'categories'):
        if not isinstance(coco, dict) or not isinstance(coco.get(key), list):
            raise ValueError(f'no list {key!r}: needed are images, annotations and categories')
        if not coco[key]:
            raise ValueError(f'the list of {key} is empty')
    for place, category in enumerate(coco['categories']):
        if not {'id', 'name'} <= category.keys():
            raise ValueError(f'category no. {place} is {category}: it needs an id and a name')


def _annotation_faults(
    annotation: dict, image: dict | None, categories: set, seen: set, with_mask: bool
) -> Iterator[str]:
    """What mmdet stumbles over."""
    if annotation.get('id') is None or annotation['id'] in seen:
        yield 'id missing or duplicate'
    if image is None:
        yield 'unknown image'
    if annotation.get('category_id') not in categories:
        yield 'unknown category'
    box = annotation.get('bbox')
    if not isinstance(box, list) or len(box) != 4 or not _is_finite(box):
        yield 'box: missing, or not four finite numbers'
        return
    x, y, width, height = box
    if width < 1 or height < 1:
        yield 'box: narrower than a pixel'
    elif image is not None and not (
        x < image['width'] and y < image['height'] and x + width > 0 and y + height > 0
    ):
        yield 'box: outside of the image'
    area: Any = annotation.get('area')
    if not _is_finite([area]):
        yield 'area: missing or not finite'
    elif area <= 0:
        yield 'area: zero or negative'
    if with_mask and image is not None:
        yield from _segmentation_faults(annotation.get('segmentation'), image)


def _segmentation_faults(segmentation: Any, image: dict) -> Iterator[str]:
    if not segmentation:
        yield 'segmentation: empty'
    elif isinstance(segmentation, dict):
        if not segmentation.get('counts') or list(segmentation.get('size', ())) != [
            image['height'], image['width'],
        ]:  # fmt: skip
            yield 'segmentation: RLE of another size'
    elif not all(isinstance(part, list) and _is_finite(part) for part in segmentation):
        yield 'segmentation: not finite'
    elif not any(len(part) >= 6 and len(part) % 2 == 0 for part in segmentation):
        yield 'segmentation: less than three points'


def _harmless_faults(annotation: dict, image: dict) -> Iterator[str]:
    """What training survives and a person may want to mend."""
    from shapely.geometry import Polygon

    x, y, width, height = annotation['bbox']
    if min(x, y) < -1 or x + width > image['width'] + 1 or y + height > image['height'] + 1:
        yield 'box: partly outside of the image'
    segmentation = annotation.get('segmentation')
    parts = segmentation if isinstance(segmentation, list) else []
    if any(
        len(part) >= 6 and not Polygon(list(zip(part[::2], part[1::2], strict=False))).is_valid
        for part in parts
    ):
        yield 'segmentation: crosses itself'


def _is_finite(values: list) -> bool:
    try:
        return math.isfinite(sum(values))  # NaN and infinity survive a sum
    except (TypeError, OverflowError):
        return False


def _is_positive(*values: Any) -> bool:
    return _is_finite(list(values)) and min(values) > 0
