"""Test a detector, classifier or segmentor on the test set of its config.

Runs the test script of mmdet, mmpretrain or mmseg, depending on the default_scope of CONFIG, with
mmpaca registered.
"""

import argparse

from . import options
from .forwarding import add_common_flags, add_flag, add_launch_arguments, launch

HELP = 'test a detector, classifier or segmentor'
EXAMPLE = 'mmpaca test mask_rcnn_paca work_dirs/paca/epoch_12.pth --nproc 8'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add config and checkpoint, how to launch, and the flags of both codebases."""
    options.add_config(parser)
    options.add_checkpoint(parser)
    add_launch_arguments(parser)
    flags = parser.add_argument_group('flags of mmdet, mmpretrain and mmseg')
    add_flag(
        flags,
        '--out',
        metavar='OUT',
        help='write the predictions: FILE.pkl; mmseg: a folder of PNGs',
    )
    add_flag(flags, '--show-dir', metavar='DIR', help='write pictures below the work dir')
    add_flag(flags, '--show', help='show pictures in a window')
    add_flag(flags, '--wait-time', metavar='SECONDS', help='time of each picture (default: 2)')
    add_flag(flags, '--tta', help='test-time augmentation')
    add_common_flags(flags)
    add_flag(flags, '--amp', help='mmpretrain only: mixed precision (needs a GPU)')
    add_flag(
        flags,
        '--out-item',
        choices=('metrics', 'pred'),
        help='mmpretrain only: what --out writes (default: pred)',
    )
    add_flag(flags, '--interval', metavar='N', help='mmpretrain only: draw every N-th picture')


def run(args: argparse.Namespace) -> None:
    """Test."""
    from mmpaca.apis.configs import find_checkpoint, find_config

    config = find_config(args.config)
    launch('test', args, [config, find_checkpoint(args.checkpoint, config)])
