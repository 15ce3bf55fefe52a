"""Find what is broken in a COCO dataset before training does.

Reads every annotation and decodes every image. Ends with status 1 where something is broken that
training would leave out, else with 0.
"""

import argparse
import json
import os
import sys
from functools import partial
from pathlib import Path

from mmengine.utils import track_parallel_progress, track_progress
from rich.console import Console
from rich.table import Table

import mmpaca  # noqa: F401
from mmpaca.checkpoint.saving import write_atomically
from mmpaca.datasets.coco_faults import FAULTS, Fault, count, find_faults, without_faults
from mmpaca.datasets.images import MAX_PIXELS, decode, is_turned

NOT_LOADED, TURNED = 'image: cannot be loaded', 'image: turned by EXIF, annotated as it is stored'


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('ann', type=Path, help='annotation file')
    parser.add_argument('img_dir', type=Path, help='folder of its images')
    parser.add_argument('--fix', type=Path, metavar='OUT', help='write a clean annotation file')
    parser.add_argument('--boxes-only', action='store_true', help='segmentations are not needed')
    parser.add_argument('--workers', type=int, default=os.cpu_count(), help='to decode images')
    parser.add_argument(
        '--max-pixels', type=int, default=MAX_PIXELS, help='of an image (default: %(default)s)'
    )
    parser.add_argument('--all', action='store_true', help='list all faults, not 10 of a kind')
    args = parser.parse_args()
    if not args.ann.is_file():
        parser.error(f'ANN must be an annotation file, {args.ann} is none')
    if not args.img_dir.is_dir():
        parser.error(f'IMG_DIR must be the folder of its images, {args.img_dir} is no folder')
    return args


def image_fault(numbered: tuple[int, dict], img_dir: Path, max_pixels: int) -> Fault | None:
    """What is wrong with a file, if anything."""
    place, image = numbered
    name, size = str(image['file_name']), (image['height'], image['width'])
    try:
        content = (img_dir / name).read_bytes()
        decode(content, size, max_pixels=max_pixels)
        return Fault(TURNED, name, image=place) if is_turned(content, size) else None
    except Exception as error:  # whatever a decoder makes of arbitrary bytes
        return Fault(NOT_LOADED, name, image=place, detail=str(error))


def check_images(coco: dict, args: argparse.Namespace) -> list[Fault]:
    """Decode all images, with a progress bar."""
    check = partial(image_fault, img_dir=args.img_dir, max_pixels=args.max_pixels)
    images = [
        (place, image)
        for place, image in enumerate(coco['images'])
        if {'file_name', 'height', 'width'} <= image.keys()
    ]
    if args.workers > 1:
        found = track_parallel_progress(check, images, args.workers, chunksize=16)
    else:
        found = track_progress(check, images)
    print()
    return [fault for fault in found if fault is not None]


def main() -> None:
    args = parse_args()
    try:
        coco = json.loads(args.ann.read_text())
        faults = list(find_faults(coco, with_mask=not args.boxes_only))
    except ValueError as error:
        sys.exit(f'error: {args.ann}: {error}')
    faults = [*check_images(coco, args), *faults]

    table = Table(title=f'{args.ann}: {len(coco["images"])} images, '
                        f'{len(coco["annotations"])} annotations')  # fmt: skip
    for title in ('what', 'number', 'in training', 'first file'):
        table.add_column(title)
    for kind, number, remedy, first in count(faults):
        table.add_row(kind, str(number), remedy, first)
        those = [fault for fault in faults if fault.kind == kind]
        for fault in those if args.all else those[:10]:
            print(fault)
        if len(those) > 10 and not args.all:
            print(f'... and {len(those) - 10} more of this kind (--all lists them)')
    if faults:
        Console().print(table)
    broken = [fault for fault in faults if FAULTS[fault.kind] != 'stays']
    print(f'{len(broken)} broken, {len(faults) - len(broken)} to look at')
    if args.fix:
        clean = without_faults(coco, faults)
        write_atomically(args.fix, json.dumps(clean).encode())
        print(
            f'wrote {args.fix}: {len(clean["images"])} images, '
            f'{len(clean["annotations"])} annotations'
        )
    sys.exit(1 if broken else 0)


if __name__ == '__main__':
    main()
