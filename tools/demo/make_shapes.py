"""Write the generated shapes dataset in COCO format."""

import argparse

from mmpaca.datasets import write_shapes


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('out_dir', help='folder to write, e.g. data/shapes')
    parser.add_argument('--num-train', type=int, default=800, help='images to train on')
    parser.add_argument('--num-val', type=int, default=200, help='held-out images')
    parser.add_argument('--image-size', type=int, default=96, help='side in pixels')
    parser.add_argument('--seed', type=int, default=0, help='of what is drawn')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    write_shapes(args.out_dir, args.num_train, args.num_val, args.image_size, args.seed)
    print(f'{args.num_train} + {args.num_val} images of {args.image_size} pixels in {args.out_dir}')


if __name__ == '__main__':
    main()
