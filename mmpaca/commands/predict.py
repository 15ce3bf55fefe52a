"""Predict images and videos with a detector, classifier or segmentor.

Writes to DIR:

  vis/NAME.jpg           boxes, masks, class names and scores (a video: NAME.mp4)
  preds/NAME.json        labels, scores, boxes, masks (RLE) and class names
  preds/NAME_sem_seg.png class index of each pixel (segmentors)
  predictions.coco.json  all detections in COCO format, with images and categories

Pictures show the detections from --score-thr on, the JSON files contain all. Small images are
drawn enlarged. A file that cannot be read is reported at the end, and the exit status is 1.
"""

import argparse
import sys

from . import options

HELP = 'predict images, folders and videos'
EXAMPLE = 'mmpaca predict mask_rcnn_paca epoch_12.pth photos/ street.mp4 --out-dir outputs'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    options.add_config(parser)
    options.add_checkpoint(parser)
    options.add_inputs(parser, 'image files, videos, folders, quoted globs')
    options.add_score_thr(parser)
    add_options(parser)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that mmdet's demo has as well."""
    options.add_out_dir(parser, 'outputs')
    parser.add_argument(
        '--batch-size', metavar='N', type=options.at_least(1), default=1, help='images in a batch'
    )
    options.add_device(parser)
    parser.add_argument('--no-save-vis', action='store_true', help='write no pictures')
    parser.add_argument('--no-save-pred', action='store_true', help='write no JSON files')
    options.add_cfg_options(parser)


def run(args: argparse.Namespace) -> int:
    """Predict and report; 1 if a file cannot be read."""
    from mmpaca import plugin

    plugin.install()
    from mmpaca.apis.configs import find_checkpoint, find_config, read_config
    from mmpaca.apis.devices import find_device
    from mmpaca.apis.frames import find_sources
    from mmpaca.apis.inference import Predictor
    from mmpaca.apis.prediction import predict_files

    find_sources(args.inputs)  # before seconds pass
    config = read_config(args.config, args.cfg_options)
    checkpoint = find_checkpoint(args.checkpoint, find_config(args.config))
    predictor = Predictor(config, checkpoint, find_device(args.device))
    done, broken = predict_files(
        predictor,
        args.inputs,
        args.out_dir,
        score_thr=args.score_thr,
        batch_size=args.batch_size,
        save_vis=not args.no_save_vis,
        save_pred=not args.no_save_pred,
        info=dict(config=args.config, checkpoint=checkpoint),
    )
    saved = not (args.no_save_vis and args.no_save_pred)
    images = f'{done} image' + 's' * (done != 1)
    print(f'predicted {images}' + (f'; results are in {args.out_dir}' if saved else ''))
    for message in broken:
        print(f'error: {message}', file=sys.stderr)
    return 1 if broken else 0
