"""Find what is wrong with a COCO dataset before training does."""

import json
import multiprocessing
import os
import sys
from collections.abc import Collection, Iterator
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from mmpaca.checkpoint.saving import write_atomically
from mmpaca.datasets.coco_faults import (
    FAULTS,
    Fault,
    count,
    find_faults,
    printable,
    read_annotations,
    without_faults,
)
from mmpaca.datasets.images import MAX_PIXELS, decode, is_turned, read_bytes

from .outputs import check_out_file

NOT_LOADED, TURNED = 'image: cannot be loaded', 'image: turned by EXIF, annotated as it is stored'
_LISTED = 10  # faults of a kind, unless all are wanted


def check_data(
    ann: str | os.PathLike,
    img_dir: str | os.PathLike,
    fix: str | os.PathLike | None = None,
    boxes_only: bool = False,
    workers: int = 1,
    max_pixels: int = MAX_PIXELS,
    list_all: bool = False,
) -> int:
    """Read every annotation, decode every image and print what is wrong.

    Args:
        ann: COCO annotation file.
        img_dir: folder of its images.
        fix: where to write a copy of ``ann`` without invalid entries; None for no copy.
        boxes_only: accept annotations without a segmentation.
        workers: processes that decode images.
        max_pixels: pixels of the largest image that is accepted.
        list_all: print all faults instead of ten of a kind.

    Returns:
        The number of images and annotations that training would skip or change.

    Raises:
        ValueError: ``ann`` is no COCO file, ``img_dir`` no folder, or ``fix`` cannot be written.
        OSError: a file cannot be read or written.
    """
    ann, img_dir = Path(ann), Path(img_dir)
    if not ann.is_file():
        raise ValueError(f'annotation file not found: {ann}')
    if not img_dir.is_dir():
        raise ValueError(f'image folder not found: {img_dir}')
    if fix is not None:
        check_out_file(fix, '--fix')
    try:
        coco = read_annotations(ann.read_bytes())
        faults = list(find_faults(coco, not boxes_only, max_pixels=max_pixels))
    except ValueError as error:
        raise ValueError(f'{ann}: {error}') from error
    # Neither opened nor named twice.
    without = {fault.image for fault in faults if FAULTS[fault.kind] == 'image'}
    faults = [*find_image_faults(coco, img_dir, workers, max_pixels, without), *faults]
    title = f'{ann}: {len(coco["images"])} images, {len(coco["annotations"])} annotations'
    _print_faults(faults, title, list_all)
    invalid = {(f.image, f.annotation) for f in faults if FAULTS[f.kind] != 'stays'}
    doubtful = {(f.image, f.annotation, f.file_name) for f in faults if FAULTS[f.kind] == 'stays'}
    print(f'{len(invalid)} broken, {len(doubtful)} to look at')
    if fix is not None:
        clean = without_faults(coco, faults)
        write_atomically(fix, json.dumps(clean).encode())
        left = f'{len(clean["images"])} images, {len(clean["annotations"])} annotations'
        print(f'wrote {fix}: {left}')
    return len(invalid)


def find_image_faults(
    coco: dict,
    img_dir: Path,
    workers: int = 1,
    max_pixels: int = MAX_PIXELS,
    without: Collection[int | None] = (),
) -> list[Fault]:
    """Decode all images of a COCO file, with a progress bar on a terminal.

    Args:
        coco: content of the annotation file.
        img_dir: folder of the images.
        workers: processes that decode.
        max_pixels: pixels of the largest image that is accepted.
        without: places in the list of images that are not looked at.
    """
    check = partial(_image_fault, img_dir=img_dir, max_pixels=max_pixels)
    images = [(place, image) for place, image in enumerate(coco['images']) if place not in without]
    show = partial(
        track,
        total=len(images),
        description='Decoding images',
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
    )
    return [fault for fault in show(_map(check, images, workers)) if fault is not None]


def _map(check: partial, images: list, workers: int) -> Iterator[Fault | None]:
    if workers < 2 or len(images) < 2:
        yield from map(check, images)
        return
    with multiprocessing.Pool(workers) as pool:
        yield from pool.imap(check, images, chunksize=16)


def _image_fault(numbered: tuple[int, dict], img_dir: Path, max_pixels: int) -> Fault | None:
    """Decode an image and return its fault, if it has one."""
    place, image = numbered
    name, size = str(image['file_name']), (image['height'], image['width'])
    try:
        content = read_bytes(img_dir / name)
        decode(content, size, max_pixels=max_pixels)
        return Fault(TURNED, name, image=place) if is_turned(content, size) else None
    except Exception as error:  # arbitrary bytes make decoders raise anything
        return Fault(NOT_LOADED, name, image=place, detail=str(error))


def _print_faults(faults: list[Fault], title: str, list_all: bool) -> None:
    table = Table(title=escape(printable(title)))
    for column in ('fault', 'number', 'in training', 'first file'):
        table.add_column(column)
    for kind, number, remedy, first in count(faults):
        table.add_row(kind, str(number), remedy, escape(printable(first)))
        found = [fault for fault in faults if fault.kind == kind]
        for fault in found if list_all else found[:_LISTED]:
            print(fault)
        if len(found) > _LISTED and not list_all:
            print(f'... and {len(found) - _LISTED} more of this kind (--all lists them)')
    if faults:
        Console().print(table)
