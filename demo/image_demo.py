"""Detect objects in images, as mmdet's demo/image_demo.py does, from any directory.

    python demo/image_demo.py IMAGE configs/mask_rcnn_paca.py --weights CHECKPOINT
    python demo/image_demo.py FOLDER mask-rcnn_paca-s_1x_coco --out-dir OUT

writes OUT/vis/NAME.jpg with the detections drawn and OUT/preds/NAME.json with their numbers.
"""

import argparse
import pickle
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import mmpaca  # noqa: F401  (before mmdet's models)

# isort: split
from mmdet.apis import DetInferencer
from mmengine.config import Config
from torch import nn

from mmpaca.checkpoint.fitting import check_fit
from mmpaca.datasets.images import check_images, find_images
from mmpaca.plugin.config_scope import config_dir


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('inputs', nargs='+', help='image files, folders and quoted globs')
    parser.add_argument(
        'model',
        help="config file (mmpaca's are found from any directory), or the name of a model in a "
        'metafile of mmpaca or mmdet, which has weights of its own',
    )
    parser.add_argument('--weights', help='checkpoint file or URL; needed with a config file')
    parser.add_argument('--out-dir', default='outputs', help='folder to write; %(default)s')
    parser.add_argument('--device', help='e.g. cuda:1 or cpu; the GPU if there is one')
    parser.add_argument(
        '--pred-score-thr', type=float, default=0.3, help='weakest detection drawn; %(default)s'
    )
    parser.add_argument('--batch-size', type=int, default=1, help='images at a time; %(default)s')
    parser.add_argument('--show', action='store_true', help='show each picture in a window')
    parser.add_argument('--no-save-vis', action='store_true', help='write no pictures')
    parser.add_argument('--no-save-pred', action='store_true', help='write no JSON files')
    parser.add_argument('--print-result', action='store_true', help='print the predictions')
    parser.add_argument(
        '--palette',
        default='none',
        choices=['coco', 'voc', 'citys', 'random', 'none'],
        help="colours of the classes; none: the data set's",
    )
    args = parser.parse_args()
    if args.batch_size < 1:
        parser.error(f'--batch-size must be at least 1, got {args.batch_size}')
    return args


def readable_images(arguments: Sequence[str]) -> list[str]:
    """The images that the arguments mean.

    Raises:
        FileNotFoundError: an argument means none.
        ValueError: files cannot be decoded, or two have one name, under which both would be
            written.
    """
    paths = find_images(arguments)
    check_images(paths)
    stem, count = Counter(path.stem for path in paths).most_common(1)[0]
    if count > 1:
        raise ValueError(f'{count} images are called {stem!r}, and so would be their predictions')
    return [str(path) for path in paths]


def find_model(text: str, weights: str | None) -> str:
    """The path of a config, or a name for mmdet to look up.

    Raises:
        FileNotFoundError: there is no such config.
        ValueError: a config without weights, or weights without a config.
    """
    if not text.endswith('.py'):
        if text.endswith(('.pth', '.safetensors')):
            # mmdet would run the config in it, which is Python code.
            raise ValueError(f'{text} is a checkpoint: give the config, and it as --weights')
        return text
    if weights is None:
        raise ValueError(f'{text} is a config: give the checkpoint to use as --weights')
    folders = (Path(), config_dir(), config_dir().parent)
    for folder in folders:
        if (folder / text).is_file():
            return str(folder / text)
    raise FileNotFoundError(f'config {text} is neither in {Path.cwd()} nor in {config_dir()}')


class StrictInferencer(DetInferencer):
    """mmdet's inferencer, which takes no weights that fit in part."""

    def _init_model(self, cfg: Config, weights: str | None, device: str) -> nn.Module:
        scope = cfg.get('default_scope')
        if scope != 'mmdet':
            raise ValueError(f'default_scope={scope!r}: this runs detectors of mmdet only')
        if weights is None:
            raise ValueError('the metafile names no weights for this model: give --weights')
        return super()._init_model(cfg, weights, device)

    def _load_weights_to_model(self, model: nn.Module, checkpoint: dict, cfg: Config) -> None:
        check_fit(model, checkpoint)
        super()._load_weights_to_model(model, checkpoint, cfg)


def main() -> None:
    args = parse_args()
    try:
        images = readable_images(args.inputs)
        inferencer = StrictInferencer(
            find_model(args.model, args.weights), args.weights, args.device, palette=args.palette
        )
    except (OSError, RuntimeError, ValueError, pickle.UnpicklingError) as error:
        sys.exit(f'error: {error}')
    inferencer(
        images,
        batch_size=args.batch_size,
        show=args.show,
        no_save_vis=args.no_save_vis,
        pred_score_thr=args.pred_score_thr,
        print_result=args.print_result,
        no_save_pred=args.no_save_pred,
        out_dir=args.out_dir,
    )
    if not (args.no_save_vis and args.no_save_pred):
        print(f'results of {len(images)} images are in {args.out_dir}')


if __name__ == '__main__':
    main()
