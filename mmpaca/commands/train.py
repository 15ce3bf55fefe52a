"""Train a detector, classifier or segmentor.

Runs the training script of mmdet, mmpretrain or mmseg, depending on the default_scope of CONFIG, with
mmpaca registered. For several machines see tools/dist_train.sh.
"""

import argparse

from . import options
from .forwarding import add_common_flags, add_flag, add_launch_arguments, launch

HELP = 'train a detector, classifier or segmentor'
EXAMPLE = 'mmpaca train mask_rcnn_paca --nproc 8 --amp --work-dir work_dirs/paca'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the config, how to launch, and the flags of both codebases."""
    options.add_config(parser)
    add_launch_arguments(parser)
    flags = parser.add_argument_group('flags of mmdet, mmpretrain and mmseg')
    add_flag(
        flags,
        '--resume',
        nargs='?',
        metavar='CHECKPOINT',
        help='resume from CHECKPOINT, or from the latest one in the work dir',
    )
    add_flag(flags, '--auto-scale-lr', help='scale the learning rate with the batch size')
    add_flag(flags, '--amp', help='mixed precision (needs a GPU)')
    add_common_flags(flags)
    add_flag(flags, '--no-validate', help='mmpretrain only')
    add_flag(flags, '--no-persistent-workers', help='mmpretrain only')


def run(args: argparse.Namespace) -> None:
    """Train."""
    from mmpaca.apis.configs import find_config

    launch('train', args, [find_config(args.config)])
