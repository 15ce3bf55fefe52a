"""Check a dataset in COCO format before training.

Reads every annotation and decodes every image. The exit status is 1 if training would skip or
change anything, else 0.
"""

import argparse
import os

from . import options

HELP = 'find broken annotations and images'
EXAMPLE = 'mmpaca check-data annotations/train.json train --fix annotations/train_clean.json'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the dataset and what to check."""
    ann = parser.add_argument('ann', metavar='ANN', help='COCO annotation file')
    img_dir = parser.add_argument('img_dir', metavar='IMG_DIR', help='folder of its images')
    fix = parser.add_argument('--fix', metavar='OUT', help='write a clean annotation file')
    parser.add_argument(
        '--boxes-only', action='store_true', help='accept annotations without a segmentation'
    )
    parser.add_argument(
        '--workers',
        type=options.at_least(1),
        metavar='N',
        default=os.cpu_count(),
        help='processes that decode images',
    )
    parser.add_argument(
        '--max-pixels',
        type=options.at_least(1),
        metavar='N',
        default=2**27,
        help='pixels of the largest image that is accepted',
    )
    parser.add_argument('--all', action='store_true', help='list all faults, not 10 of a kind')
    options.completed(ann, options.FILE)
    options.completed(img_dir, options.FOLDER)
    options.completed(fix, options.FILE)


def run(args: argparse.Namespace) -> int:
    """Check the dataset; 1 if anything is broken."""
    from mmpaca import plugin

    plugin.install()
    from mmpaca.apis.check_data import check_data

    broken = check_data(
        args.ann, args.img_dir, args.fix, args.boxes_only, args.workers, args.max_pixels, args.all
    )
    return 1 if broken else 0
