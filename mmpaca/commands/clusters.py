"""Draw the clusters of a PaCa detector, classifier or segmentor on images.

Writes to DIR:

  index.html                  interactive page: click an object to see what decided;
                              for many images a gallery of pages/NNN.html
  NNN_NAME/detections.jpg     the predictions
  NNN_NAME/stageI_blockJ.jpg  strongest cluster of each patch, and heat maps of the
                              clusters that receive most attention
  NNN_NAME/head.jpg           the same for a PaCa segmentation head, whose clusters are
                              the classes
  NNN_NAME/looked_at_K.jpg    what decided each detection, and where it attends

Images with a side of more than 2048 pixels are scaled down to that first.
"""

import argparse

from . import options

HELP = 'draw clusters as pictures and an interactive page'
EXAMPLE = 'mmpaca clusters mask_rcnn_paca epoch_12.pth photos/ --out-dir clusters'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    options.add_config(parser)
    options.add_checkpoint(parser)
    options.add_inputs(parser, 'image files, folders, quoted globs')
    options.add_out_dir(parser, 'clusters')
    options.add_score_thr(parser)
    options.add_device(parser)
    natural = options.at_least(1)
    parser.add_argument(
        '--stages',
        metavar='I',
        type=natural,
        nargs='+',
        help='stages to show, from 1 (default: all)',
    )
    parser.add_argument(
        '--all-blocks', action='store_true', help='show all blocks of a stage, not only the last'
    )
    parser.add_argument(
        '--num-clusters', metavar='N', type=natural, default=9, help='heat maps per stage'
    )
    parser.add_argument(
        '--map-cells',
        metavar='N',
        type=natural,
        default=48,
        help='longer side of a map on the page',
    )
    action = parser.add_argument(
        '--compare',
        metavar='CHECKPOINT2',
        help='other weights of CONFIG, shown beside the first ones on the page',
    )
    options.completed(action, options.FILE)
    parser.add_argument(
        '--deletion',
        metavar='N',
        type=natural,
        default=0,
        help='follow the scores of the N surest detections of an image while relevant pixels are '
        'removed and shown (66 predictions each)',
    )
    options.add_cfg_options(parser)


def run(args: argparse.Namespace) -> None:
    """Write pictures and page."""
    from mmpaca import plugin

    plugin.install()
    from mmpaca.apis.clusters import page
    from mmpaca.apis.configs import find_checkpoint, find_config, read_config
    from mmpaca.apis.devices import find_device

    config = find_config(args.config)
    path = page(
        args.inputs,
        read_config(args.config, args.cfg_options),
        find_checkpoint(args.checkpoint, config),
        args.out_dir,
        device=find_device(args.device),
        score_thr=args.score_thr,
        stages=args.stages,
        all_blocks=args.all_blocks,
        num_clusters=args.num_clusters,
        map_cells=args.map_cells,
        compare=args.compare and find_checkpoint(args.compare, config),
        curves=args.deletion,
    )
    size = path.stat().st_size / 1e6
    print(f'pictures are in {path.parent}, the page is {path} ({size:.1f} MB)')
