"""Write scikit-learn's digits, 1,797 real scans, as a folder of images per class."""

import argparse
import sys

from mmpaca.commands.reporting import report
from mmpaca.datasets import write_digits


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('out_dir', help='folder to write, e.g. data/digits')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    counts = write_digits(args.out_dir)
    print(f'{counts["train"]} + {counts["test"]} images of 8 pixels in {args.out_dir}')


if __name__ == '__main__':
    sys.exit(report(main))
