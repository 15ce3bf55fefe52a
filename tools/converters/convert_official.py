"""Write a checkpoint of the authors' release under the names of PaCaViT, mmpretrain or mmdet.

Training and testing take the authors' files as they are; this is for other programs.
"""

import argparse
import io
import pickle
import sys

import torch

import mmpaca  # noqa: F401
from mmpaca.checkpoint import TASKS, convert_official, load_from_local, weights_of
from mmpaca.checkpoint.saving import write_atomically


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('src', help="the authors' checkpoint")
    parser.add_argument('dst', help='file to write')
    parser.add_argument(
        '--task',
        choices=TASKS,
        default='backbone',
        help="whose names: PaCaViT's, mmpretrain's ImageClassifier, or an mmdet detector",
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    content = io.BytesIO()
    try:
        weights = weights_of(load_from_local(args.src, map_location='cpu', rename=False))
        converted = convert_official(weights, args.task)
        torch.save(dict(state_dict=converted), content)
        write_atomically(args.dst, content.getvalue())
    except (OSError, RuntimeError, ValueError, pickle.UnpicklingError) as error:
        sys.exit(f'error: {error}')
    left_out = len(weights) - len(converted)
    print(
        f'{len(converted)} of {len(weights)} tensors matched, {left_out} left out for {args.task}'
    )
    print(f'wrote {args.dst}')


if __name__ == '__main__':
    main()
