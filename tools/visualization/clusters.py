"""Pictures and a page of what a detector's or classifier's clusters do with images."""

import argparse
import pickle
import sys
from pathlib import Path

import mmcv
import torch
from mmengine.utils import track_iter_progress

import mmpaca
from mmpaca.apis.inference import Predictor
from mmpaca.datasets.images import check_images, find_images
from mmpaca.explain.page import Page
from mmpaca.explain.scene import Scene
from mmpaca.explain.sheets import all_sheets


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('images', nargs='+', help='files, folders and quoted globs')
    parser.add_argument('--config', required=True, help='of mmdet or mmpretrain, with a PaCaViT')
    parser.add_argument('--checkpoint', required=True, help='weights that fit the config')
    parser.add_argument('--out-dir', required=True, type=Path, help='folder to write')
    device = 'cuda:0' if torch.cuda.is_available() else 'cpu'
    parser.add_argument('--device', default=device, help='here: %(default)s')
    parser.add_argument('--score-thr', type=float, default=0.3, help='weakest detection shown')
    parser.add_argument('--stages', type=int, nargs='+', help='stages to show, from 1; all')
    parser.add_argument('--all-blocks', action='store_true', help='not only the last of a stage')
    parser.add_argument('--num-clusters', type=int, default=9, help='heat maps per stage')
    parser.add_argument('--map-cells', type=int, default=48, help='longest side of a page map')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    try:
        images = find_images(args.images)
        check_images(images)
        predictor = Predictor(args.config, args.checkpoint, args.device)
    except (OSError, RuntimeError, ValueError, pickle.UnpicklingError) as error:
        sys.exit(f'error: {error}')
    try:
        write_files(predictor, images, args)
    except (OSError, ValueError) as error:
        sys.exit(f'error: {error}')
    print(f'\n{len(images)} images: pictures in {args.out_dir}, page {args.out_dir / "index.html"}')


def write_files(predictor: Predictor, images: list[Path], args: argparse.Namespace) -> None:
    """The page and the pictures of each image."""
    args.out_dir.mkdir(parents=True, exist_ok=True)
    attention = 'all' if args.all_blocks else 'last'
    with (
        mmpaca.explain.record(predictor.model, attention) as recording,
        Page(args.out_dir / 'index.html', args.map_cells) as page,
    ):
        for i in recording.left_out:
            print(f'stage {i + 1} is left out: it attends to patches, it has no clusters')
        # A number before each name: two folders may have images of one name.
        for number, path in enumerate(track_iter_progress(images), start=1):
            image, sample = predictor(path)
            scene = Scene.from_sample(
                image, sample, recording, 0, predictor.classes, args.score_thr, args.all_blocks
            ).only_stages(args.stages)
            folder = args.out_dir / f'{number:03d}_{path.stem}'
            drawn = predictor.draw(image, sample, args.score_thr)
            for name, picture in [('detections', drawn), *all_sheets(scene, args.num_clusters)]:
                mmcv.imwrite(picture[..., ::-1], str(folder / f'{name}.jpg'))
            page.add(path.name, scene)


if __name__ == '__main__':
    main()
