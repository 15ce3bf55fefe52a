"""Measure how faithful the explanations of a detector are, beside those of other methods.

For every method: area under the deletion curve (lower is better) and the insertion curve (higher),
pointing game, share of relevance in the annotated object, sparsity (Gini index), rank correlation
with the map of a model with shuffled weights (should be near 0) and with the map of a slightly
noisy image (should be near 1), and seconds per detection; means with 95 % bootstrap intervals. An
interrupted run continues where it stopped.
"""

import argparse

from . import options

HELP = 'measure how faithful explanations are'
EXAMPLE = 'mmpaca explain-eval mask_rcnn_paca epoch_12.pth --methods paca d_rise random'
METHODS = (
    'paca', 'paca_flow', 'd_rise', 'grad_cam', 'hires_cam', 'eigen_cam', 'gradient', 'looked_at', 'attention',
    'gaussian', 'random',
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    options.add_config(parser)
    options.add_checkpoint(parser)
    data = parser.add_argument(
        '--data',
        metavar='ANN.json',
        help="COCO annotations (default: the config's validation set)",
    )
    images = parser.add_argument(
        '--images', metavar='DIR', help='folder of the images of --data (default: its own)'
    )
    options.completed(data, options.FILE)
    options.completed(images, options.FOLDER)
    parser.add_argument(
        '--methods',
        nargs='+',
        choices=METHODS,
        metavar='METHOD',
        default=METHODS,
        help=f'{", ".join(METHODS)} (default: all)',
    )
    natural = options.at_least(1)
    parser.add_argument(
        '--num-detections', metavar='N', type=natural, default=100, help='detections to measure'
    )
    parser.add_argument(
        '--per-image', metavar='N', type=natural, default=5, help='at most as many of an image'
    )
    parser.add_argument(
        '--steps', metavar='N', type=natural, default=32, help='steps of deletion and insertion'
    )
    options.add_score_thr(parser)
    options.add_device(parser)
    out = parser.add_argument(
        '--out', metavar='FILE', default='work_dirs/explain_eval.json', help='JSON file to write'
    )
    options.completed(out, options.FILE)
    options.add_cfg_options(parser)


def run(args: argparse.Namespace) -> None:
    """Measure and print two tables."""
    from mmpaca import plugin

    plugin.install()
    from pathlib import Path

    from mmpaca.apis.configs import find_checkpoint, find_config, read_config
    from mmpaca.apis.devices import find_device
    from mmpaca.apis.explain_eval import (
        Evaluation,
        differences,
        format_table,
        read_images,
        summarise,
    )
    from mmpaca.apis.inference import Predictor
    from mmpaca.apis.outputs import check_out_file

    if args.images and not args.data:
        raise ValueError('--images needs --data, the annotations of these images')
    out = check_out_file(args.out, '--out')
    config = read_config(args.config, args.cfg_options)
    if args.data:
        data = Path(args.data).resolve()
        folder = Path(args.images).resolve() if args.images else data.parent
        dataset = config.val_dataloader.dataset
        dataset.update(data_root='', ann_file=str(data), data_prefix=dict(img=str(folder)))
    images = read_images(config)
    checkpoint = find_checkpoint(args.checkpoint, find_config(args.config))
    predictor = Predictor(config, checkpoint, find_device(args.device))
    evaluation = Evaluation(
        predictor,
        args.methods,
        args.num_detections,
        args.per_image,
        args.score_thr,
        args.steps,
        out,
        f'{args.config} {checkpoint}',
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    for measured in evaluation.run(images):
        print(f'{measured} of {args.num_detections} detections', flush=True)
    print(f'{evaluation.num_measured} detections, means [95 % intervals]')
    print(format_table(summarise(evaluation.rows)))
    if 'paca' in args.methods and len(args.methods) > 1:
        print('\ndifferences to paca on the same detections')
        print(format_table(differences(evaluation.rows)))
    print(f'wrote {out}')
