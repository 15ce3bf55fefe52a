"""Estimate how a data-parallel training scales from 1 to 64 GPUs, on paper.

Every figure is an assumption of the command line or arithmetic on it; nothing is measured. See
docs/scaling.md for the sources.
"""

import argparse

COCO_IMAGES = 117_266  # train2017 images with annotations


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        '--params', type=float, default=41.8e6, help='trained parameters (PaCa-S Mask R-CNN)'
    )
    parser.add_argument('--step', type=float, default=0.25, help='assumed seconds of a step, 1 GPU')
    parser.add_argument('--batch', type=int, default=2, help='images per GPU')
    parser.add_argument('--nvlink', type=float, default=450e9, help='bytes/s per GPU and direction')
    parser.add_argument(
        '--network', type=float, default=12.5e9, help='bytes/s per machine of 8 GPUs'
    )
    parser.add_argument(
        '--load', type=float, default=0.05, help='assumed CPU seconds to load and augment an image'
    )
    return parser.parse_args()


def all_reduce_seconds(size: float, gpus: int, nvlink: float, network: float) -> float:
    """Ring all-reduce: 2 (n - 1) / n of the gradients through the slowest link."""
    return 2 * (gpus - 1) / gpus * size / (nvlink if gpus <= 8 else network)


def main() -> None:
    args = parse_args()
    size = args.params * 4  # float32 gradients, also under autocast
    print(
        '| GPUs | all-reduce (ms) | efficiency, no overlap | hours for 12 epochs | loader cores |'
    )
    print('|---|---|---|---|---|')
    for gpus in (1, 2, 4, 8, 16, 32, 64):
        reduce = all_reduce_seconds(size, gpus, args.nvlink, args.network)
        step = args.step + reduce
        hours = 12 * COCO_IMAGES / (gpus * args.batch) * step / 3600
        cores = args.load * args.batch / step  # that keep one GPU busy
        print(
            f'| {gpus} | {reduce * 1e3:.1f} | {args.step / step:.2f} | {hours:.1f} | '
            f'{cores:.1f} per GPU |'
        )


if __name__ == '__main__':
    main()
