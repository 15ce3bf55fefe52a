"""Count parameters and multiply-accumulates, which papers call FLOPs, attention included.

With --published, compares them with the authors' figures: ImageNet at 224x224, detectors at
1280x800, segmentors at 512x512. The counters behind those figures took four times too much for the transposed convolution
of the mask head (15.4 G in all); the comparison counts in the same way.
"""

import argparse

from . import options

HELP = 'count parameters and multiply-accumulates'
EXAMPLE = 'mmpaca flops mask_rcnn_paca --shape 800 1280 --depth 2'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the config and how to count it."""
    options.add_config(parser, nargs='?')
    parser.add_argument(
        '--published', action='store_true', help="compare CONFIG, or all, with the authors' figures"
    )
    options.add_shape(parser, '800 1280; classifiers 224 224, segmentors 512 512')
    parser.add_argument(
        '--depth',
        type=options.at_least(1),
        metavar='N',
        help='levels of modules in the table (default: 2)',
    )
    options.add_cfg_options(parser)


def run(args: argparse.Namespace) -> None:
    """Print the table."""
    given = [name for name in ('shape', 'depth', 'cfg_options') if getattr(args, name) is not None]
    if args.published and given:
        raise ValueError(f'--{given[0].replace("_", "-")} cannot be combined with --published')
    if not args.config and not args.published:
        raise ValueError('give a CONFIG, or --published')
    from mmpaca.apis.configs import find_config, read_config

    path = find_config(args.config) if args.config else None
    from mmpaca import plugin

    plugin.install()
    from mmpaca.apis.flops import print_modules, print_published

    if path is None or args.published:
        print_published(path)
    else:
        print_modules(read_config(path, args.cfg_options), args.shape, args.depth or 2)
