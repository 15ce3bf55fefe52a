"""Predict images with mmdet's arguments; the same as ``mmpaca predict``.

python demo/image_demo.py IMAGE configs/mask_rcnn_paca.py --weights CHECKPOINT
"""

import argparse
import sys

from mmpaca.__main__ import HelpFormatter
from mmpaca.commands import options, predict
from mmpaca.commands.reporting import report


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument('inputs', nargs='+', help='image files, videos, folders, quoted globs')
    parser.add_argument(
        'config', metavar='model', help='config file, or a name of `mmpaca configs`'
    )
    parser.add_argument(
        '--weights', dest='checkpoint', required=True, help='checkpoint, URL or `published`'
    )
    parser.add_argument('--pred-score-thr', dest='score_thr', type=options.fraction, default=0.3)
    predict.add_options(parser)
    return parser.parse_args()


if __name__ == '__main__':
    args = parse_args()
    sys.exit(report(lambda: predict.run(args)))
