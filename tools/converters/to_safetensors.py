"""Write the weights of a checkpoint as .safetensors, which cannot hold code.

The file takes the place of the checkpoint in tools/test.py, init_cfg and the inferencers. It holds
no optimizer: training resumes from .pth files only.
"""

import argparse
import pickle
import sys
from pathlib import Path

import mmpaca  # noqa: F401
from mmpaca.checkpoint import load_from_local, weights_of
from mmpaca.checkpoint.safetensors import SUFFIX, save_safetensors


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('src', help="a checkpoint of a training run, or the authors'")
    parser.add_argument('dst', nargs='?', help='file to write; SRC with .safetensors if left out')
    args = parser.parse_args()
    args.dst = args.dst or str(Path(args.src).with_suffix(SUFFIX))
    if not args.dst.endswith(SUFFIX):
        parser.error(f'DST must end in {SUFFIX}, by which it is recognised; got {args.dst}')
    return args


def main() -> None:
    args = parse_args()
    try:
        checkpoint = load_from_local(args.src, map_location='cpu')
        weights = weights_of(checkpoint)
        save_safetensors(weights, checkpoint.get('meta', {}), args.dst)
    except (OSError, RuntimeError, TypeError, ValueError, pickle.UnpicklingError) as error:
        sys.exit(f'error: {error}')
    print(f'wrote {len(weights)} tensors to {args.dst}')


if __name__ == '__main__':
    main()
