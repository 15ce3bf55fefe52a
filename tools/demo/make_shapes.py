"""Write the generated shapes dataset in COCO format."""

import argparse
import sys

from mmpaca.commands.options import at_least
from mmpaca.commands.reporting import report
from mmpaca.datasets import write_shapes


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('out_dir', help='folder to write, e.g. data/shapes')
    parser.add_argument('--num-train', type=at_least(1), default=800, help='training images')
    parser.add_argument('--num-val', type=at_least(1), default=200, help='validation images')
    parser.add_argument('--image-size', type=at_least(32), default=96, help='side in pixels')
    parser.add_argument('--seed', type=at_least(0), default=0, help='random seed')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    write_shapes(args.out_dir, args.num_train, args.num_val, args.image_size, args.seed)
    print(f'{args.num_train} + {args.num_val} images of {args.image_size} pixels in {args.out_dir}')


if __name__ == '__main__':
    sys.exit(report(main))
