"""Faults in a COCO annotation file, and the file without them."""

import json
import math
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .coco_categories import check_categories
from .images import MAX_PIXELS, is_outside

# Fault -> what is skipped because of it; 'stays' for nothing.
FAULTS = {
    'image: id missing or duplicate': 'image',
    'image: id of another type than the others': 'image',
    'image: no file name or size': 'image',
    'image: file name leads out of the folder': 'image',
    'image: more pixels than are decoded': 'image',
    'image: more annotations than are read': 'image',
    'id missing or duplicate': 'annotation',
    'unknown image': 'annotation',
    'unknown category': 'annotation',
    'iscrowd: neither 0 nor 1': 'annotation',
    'box: missing, or not four finite numbers': 'annotation',
    'box: narrower than a pixel': 'annotation',
    'box: outside of the image': 'annotation',
    'segmentation: empty': 'annotation',
    'segmentation: not finite': 'annotation',
    'segmentation: less than three points': 'annotation',
    'segmentation: far outside of the image': 'annotation',
    'segmentation: RLE of another size': 'annotation',
    'segmentation: invalid RLE': 'annotation',
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
    'image': 'image skipped',
    'annotation': 'annotation skipped',
    'area of the box': "the box's area is used",
    'stays': 'stays',
}

# pycocotools takes memory for each pixel of a polygon's outline: 2.3 GiB at 1e7, a crash at 1e9.
_MAX_SIZES_AWAY = 10
# mmdet makes a mask of the image's size for each annotation of an image, all at once.
_MAX_ANNOTATIONS, _MAX_MASK_PIXELS = 10_000, 2**33
# Kinds that evaluation ignores: those with which pycocotools crashes or computes nonsense, or that it
# never compares. It keeps all others, because AP is comparable on the same ground truth alone.
UNUSABLE = {
    'unknown image',
    'unknown category',
    'iscrowd: neither 0 nor 1',
    'box: missing, or not four finite numbers',
    'segmentation: empty',
    'segmentation: not finite',
    'segmentation: less than three points',
    'segmentation: far outside of the image',
    'segmentation: RLE of another size',
    'segmentation: invalid RLE',
    'area: missing or not finite',
}
# The key of the invalid value.
_VALUE = {'unknown image': 'image_id', 'unknown category': 'category_id'}


@dataclass(frozen=True)
class Fault:
    """One fault."""

    kind: str  # of FAULTS
    file_name: str  # of the image, '?' where unknown
    annotation: int | None = None  # its place in the list of annotations
    image: int | None = None  # its place in the list of images
    detail: str = ''  # the invalid value, or the decoder's error

    def __str__(self) -> str:
        where = '' if self.annotation is None else f', annotation no. {self.annotation}'
        detail = self.detail and f' ({printable(self.detail)})'
        return f'{printable(self.file_name)}{where}: {self.kind}{detail}'


def read_annotations(content: bytes) -> Any:
    """Parse a COCO annotation file as mmdet does: UTF-8 without a byte order mark.

    Raises:
        ValueError: it is not UTF-8 or not JSON, or nested too deeply.
    """
    try:
        return json.loads(content.decode())
    except UnicodeDecodeError as error:
        raise ValueError(f'not a JSON file in UTF-8: {error}') from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f'not a JSON file: {error}') from None


def printable(text: str) -> str:
    """Escape what a terminal would interpret or cannot show."""
    return ''.join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def find_faults(
    coco: dict, with_mask: bool = True, thorough: bool = True, max_pixels: int = MAX_PIXELS
) -> Iterator[Fault]:
    """Find the faults of a COCO annotation file.

    Args:
        coco: content of the file, any JSON.
        with_mask: check segmentations.
        thorough: also report faults that do not affect training (``'stays'`` in :data:`FAULTS`).
        max_pixels: largest number of pixels of an image.

    Raises:
        ValueError: a list is missing or empty, or a category is invalid or duplicate.
    """
    _check_structure(coco)
    faults, images = judge_entries(coco, with_mask, max_pixels)
    yield from faults
    categories = {category['id'] for category in coco['categories']}
    seen: set = set()
    content: dict = {image_id: [] for image_id in images}
    for place, annotation in enumerate(coco['annotations']):
        if not isinstance(annotation, dict):
            yield Fault('id missing or duplicate', '?', annotation=place)
            continue
        image_id = annotation.get('image_id')
        image = images.get(image_id) if _is_id(image_id) else None
        name = _file_name(image)
        kinds = list(_annotation_faults(annotation, image, categories, seen, with_mask))
        if image is not None and not any(FAULTS[kind] == 'annotation' for kind in kinds):
            content[image_id].append(bool(annotation.get('iscrowd')))
            if thorough:
                kinds += _harmless_faults(annotation, image, with_mask)
        for kind in kinds:
            # With quotes: most often it is text instead of a number.
            detail = repr(annotation.get(_VALUE[kind])) if kind in _VALUE else ''
            yield Fault(kind, name, annotation=place, detail=detail[:80])
        if _is_id(annotation.get('id')):
            seen.add(annotation['id'])
    if thorough:
        for image_id, crowds in content.items():
            if not crowds:
                yield Fault('image: no annotations', images[image_id]['file_name'])
            elif all(crowds):
                yield Fault('image: only crowds', images[image_id]['file_name'])


def judge_entries(
    coco: dict, with_mask: bool = False, max_pixels: int = MAX_PIXELS
) -> tuple[list[Fault], dict]:
    """Find the faults of the list of images alone; returns them, and the whole images by id.

    Args as of :func:`find_faults`, but the file may have no annotations.
    """
    numbers = Counter(
        annotation['image_id']
        for annotation in coco.get('annotations') or []
        if isinstance(annotation, dict) and _is_id(annotation.get('image_id'))
    )
    faults: list[Fault] = []
    images: dict = {}
    for place, image in enumerate(coco['images']):
        kind, detail = _image_fault(image, images, numbers, with_mask, max_pixels)
        if kind:
            faults.append(Fault(kind, _file_name(image), image=place, detail=detail))
        else:
            images[image['id']] = image
    return faults, images


def without_faults(coco: dict, faults: list[Fault]) -> dict:
    """Copy a COCO annotation file, without or with fixed faults as :data:`FAULTS` says."""

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


def for_evaluation(coco: dict, faults: list[Fault]) -> dict:
    """Copy a COCO annotation file as pycocotools' evaluation needs it.

    Without the faults in :data:`UNUSABLE`; an annotation that does not say is no crowd, as in mmdet.
    """
    whole = without_faults(coco, [fault for fault in faults if fault.kind in UNUSABLE])
    annotations = [dict(iscrowd=0) | annotation for annotation in whole['annotations']]
    return {**whole, 'annotations': annotations}


def count(faults: list[Fault]) -> list[tuple[str, int, str, str]]:
    """Return rows of a table: fault, number, remedy, first file."""
    numbers = Counter(fault.kind for fault in faults)
    first: dict[str, str] = {}
    for fault in faults:
        first.setdefault(fault.kind, fault.file_name)
    return [
        (kind, numbers[kind], REMEDY[FAULTS[kind]], first[kind]) for kind in FAULTS if numbers[kind]
    ]


def _check_structure(coco: Any) -> None:
    """Raise an error for what cannot be fixed by skipping a part."""
    for key in ('images', 'annotations', 'categories'):
        if not isinstance(coco, dict) or not isinstance(coco.get(key), list):
            raise ValueError(f'no list {key!r}: needed are images, annotations and categories')
        if not coco[key]:
            raise ValueError(f'the list of {key} is empty')
    check_categories(coco['categories'])


def _image_fault(
    image: Any, images: dict, numbers: Counter, with_mask: bool, max_pixels: int
) -> tuple[str, str]:
    """Kind and detail of an image's fault, or two empty strings."""
    if not isinstance(image, dict) or not _is_id(image.get('id')) or image['id'] in images:
        return 'image: id missing or duplicate', ''
    if images and isinstance(image['id'], str) != isinstance(next(iter(images)), str):
        return 'image: id of another type than the others', repr(image['id'])[:80]
    if _file_name(image) == '?' or not _is_positive(image.get('width'), image.get('height')):
        return 'image: no file name or size', ''
    if is_outside(image['file_name']):
        return 'image: file name leads out of the folder', ''
    pixels, number = image['width'] * image['height'], numbers[image['id']]
    if pixels > max_pixels:
        return 'image: more pixels than are decoded', f'{pixels:.6g}, at most {max_pixels}'
    limit = max_annotations(pixels, with_mask)
    if number > limit:
        return 'image: more annotations than are read', f'{number}, at most {limit}'
    return '', ''


def max_annotations(pixels: float, with_mask: bool) -> int:
    """The largest number of annotations of an image that are read."""
    most = _MAX_MASK_PIXELS / max(pixels, 1) if with_mask else math.inf
    return int(min(_MAX_ANNOTATIONS, most))


def segmentation_fault(segmentation: Any, height: float, width: float) -> str:
    """The first fault of a segmentation in an image of this size, or an empty string."""
    return next(_segmentation_faults(segmentation, dict(height=height, width=width)), '')


def _annotation_faults(
    annotation: dict, image: dict | None, categories: set, seen: set, with_mask: bool
) -> Iterator[str]:
    """Faults that break training or are not learnt from."""
    if not _is_id(annotation.get('id')) or annotation['id'] in seen:
        yield 'id missing or duplicate'
    if image is None:
        yield 'unknown image'
    category = annotation.get('category_id')
    if not _is_id(category) or category not in categories:
        yield 'unknown category'
    if annotation.get('iscrowd', 0) not in (0, 1):
        yield 'iscrowd: neither 0 nor 1'
    box = annotation.get('bbox')
    if not isinstance(box, list) or len(box) != 4 or not _is_finite(box):
        yield 'box: missing, or not four finite numbers'
        return
    x, y, width, height = box
    if width < 1 or height < 1:
        yield 'box: narrower than a pixel'
    elif image is not None and not (
        _is_near(box, image)
        and x < image['width']
        and y < image['height']
        and x + width > 0
        and y + height > 0
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
        yield from _rle_faults(segmentation, image)
    elif not isinstance(segmentation, list) or not all(
        isinstance(part, list) and _is_finite(part) for part in segmentation
    ):
        yield 'segmentation: not finite'
    elif not all(_is_near(part, image) for part in segmentation):
        yield 'segmentation: far outside of the image'
    elif not any(len(part) >= 6 and len(part) % 2 == 0 for part in segmentation):
        yield 'segmentation: less than three points'


def _rle_faults(rle: dict, image: dict) -> Iterator[str]:
    if not rle.get('counts') or rle.get('size') != [image['height'], image['width']]:
        yield 'segmentation: RLE of another size'
        return
    counts = rle['counts']
    try:
        counts = decompressed(counts) if isinstance(counts, str) else counts
    except ValueError:
        counts = None
    if not isinstance(counts, list) or not all(type(n) is int and n >= 0 for n in counts):
        yield 'segmentation: invalid RLE'
    elif sum(counts) != image['height'] * image['width']:
        yield 'segmentation: RLE of another size'


def decompressed(text: str) -> list[int]:
    """The run lengths in pycocotools' compressed RLE (``rleFrString`` in its maskApi.c).

    Raises:
        ValueError: the text is no such thing, e.g. ends within a number.
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        digit = ord(character) - 48
        if not 0 <= digit < 64 or shift > 30:
            raise ValueError(f'invalid character {character!r}')
        value |= (digit & 31) << shift
        shift += 5
        if not digit & 32:
            if digit & 16:
                value -= 1 << shift
            counts.append(value + counts[-2] if len(counts) > 2 else value)
            value = shift = 0
    if shift:
        raise ValueError('it ends within a number')
    return counts


def _harmless_faults(annotation: dict, image: dict, with_mask: bool) -> Iterator[str]:
    """Faults that training survives."""
    from shapely.geometry import Polygon

    x, y, width, height = annotation['bbox']
    if min(x, y) < -1 or x + width > image['width'] + 1 or y + height > image['height'] + 1:
        yield 'box: partly outside of the image'
    segmentation = annotation.get('segmentation')
    parts = segmentation if with_mask and isinstance(segmentation, list) else []
    if any(
        len(part) >= 6 and not Polygon(list(zip(part[::2], part[1::2], strict=False))).is_valid
        for part in parts
    ):
        yield 'segmentation: crosses itself'


def _file_name(image: Any) -> str:
    """The name of an image's file, '?' where it has none that can be opened."""
    name = image.get('file_name') if isinstance(image, dict) else None
    if not isinstance(name, str) or not name or '\0' in name:
        return '?'
    try:
        os.fsencode(name)
    except UnicodeEncodeError:  # half of a surrogate pair
        return '?'
    return name


def _is_id(value: Any) -> bool:
    return type(value) in (int, str) or type(value) is float and math.isfinite(value)


def _is_near(coordinates: list, image: dict) -> bool:
    limit = _MAX_SIZES_AWAY * max(image['width'], image['height'], 100)
    return all(abs(value) <= limit for value in coordinates)


def _is_finite(values: list) -> bool:
    if not all(type(value) in (int, float) for value in values):
        return False
    try:
        return math.isfinite(sum(values))  # NaN and infinity survive a sum
    except OverflowError:  # an integer of 400 digits
        return False


def _is_positive(*values: Any) -> bool:
    return _is_finite(list(values)) and min(values) > 0
