"""Train a detector, classifier or segmentor: with a config, or on a folder of your own images.

With CONFIG, runs the training script of mmdet, mmpretrain or mmseg, depending on the default_scope
of CONFIG, with mmpaca registered. For several machines see tools/dist_train.sh.

With --data, reads labels in the format of COCO, Pascal VOC, YOLO, labelme or CVAT, checks them,
writes a config with every decision and its reason, trains, evaluates, and draws results and
clusters.
"""

import argparse
import math

from . import options
from .forwarding import add_common_flags, add_flag, add_launch_arguments, launch

HELP = 'train with a config, or on your own images'
EXAMPLE = 'mmpaca train mask_rcnn_paca --nproc 8 --amp --work-dir work_dirs/paca'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the config, how to launch, and the flags of both codebases."""
    options.add_config(parser, nargs='?')
    add_launch_arguments(parser)
    _add_own_data(parser)
    flags = parser.add_argument_group('flags of mmdet, mmpretrain and mmseg')
    add_flag(
        flags,
        '--resume',
        nargs='?',
        metavar='CHECKPOINT',
        help='resume from CHECKPOINT, or from the latest one in the work dir',
    )
    parser.add_argument(
        '--elastic',
        action='store_true',
        help='resume with another number of processes and the same global batch',
    )
    add_flag(flags, '--auto-scale-lr', help='scale the learning rate with the batch size')
    add_flag(flags, '--amp', help='mixed precision (needs a GPU)')
    add_common_flags(flags)
    add_flag(flags, '--no-validate', help='mmpretrain only')
    add_flag(flags, '--no-persistent-workers', help='mmpretrain only')


def _add_own_data(parser: argparse.ArgumentParser) -> None:
    own = parser.add_argument_group('your own images, instead of CONFIG')
    folder = own.add_argument('--data', metavar='DIR', help='folder of images and labels')
    options.completed(folder, options.FOLDER)
    own.add_argument(
        '--minutes', metavar='N', type=_minutes, default=30, help='length of the training'
    )
    own.add_argument(
        '--task',
        choices=('detect', 'instance'),
        help='boxes, or boxes and masks (default: masks if all objects have one)',
    )
    own.add_argument(
        '--arch', choices=('nano', 'micro'), default='micro', help='size of the backbone'
    )
    own.add_argument(
        '--format',
        choices=('coco', 'voc', 'yolo', 'labelme', 'cvat'),
        help='format of the labels (default: recognised)',
    )
    own.add_argument(
        '--top-view', action='store_true', help='images have no up and down (microscope, aerial)'
    )
    own.add_argument('--config-only', action='store_true', help='write the config, do not train')


def _minutes(text: str) -> float:
    """Type of ``--minutes``."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:  # NaN is not, either
        raise argparse.ArgumentTypeError(f'{text!r} is invalid, give a number above 0')
    return value


def run(args: argparse.Namespace) -> int:
    """Train."""
    if (args.config is None) == (args.data is None):
        raise ValueError('give either CONFIG or --data DIR, see mmpaca train -h')
    if args.data is not None:
        return _run_own_data(args)
    from mmpaca.apis.configs import find_config

    if args.elastic:
        option = 'default_hooks.exact_resume.elastic=True'
        args.forwarded = [*args.forwarded, '--cfg-options', option]
    return launch('train', args, [find_config(args.config)])


def _run_own_data(args: argparse.Namespace) -> int:
    if args.nproc is not None and not args.config_only:
        raise ValueError(
            '--data trains in one process: add --config-only, then run mmpaca train CONFIG '
            f'--nproc {args.nproc}'
        )
    folder = next(
        (f.partition('=')[2] for f in args.forwarded if f.startswith('--work-dir=')), None
    )
    from mmpaca import plugin

    plugin.install()
    from mmpaca.apis.own_data.project import create_project, describe, show_results

    project = create_project(
        args.data,
        folder,
        minutes=args.minutes,
        task=args.task,
        arch=args.arch,
        format=args.format,
        top_view=args.top_view,
    )
    print(describe(project))
    print(f'wrote {project.config}', flush=True)
    if args.config_only:
        return 0
    args.forwarded = [flag for flag in args.forwarded if not flag.startswith('--work-dir=')]
    if status := launch('train', args, [str(project.config)]):
        return status
    print(show_results(project))
    return 0
