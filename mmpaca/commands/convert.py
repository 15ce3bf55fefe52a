"""Convert a checkpoint to other names or another format.

Writes the weights of a training checkpoint, or of a file of the authors' release under OpenMMLab's
names, without optimizer and run state. The suffix of DST is the format: .pth, or .safetensors,
which cannot hold code. mmpaca loads the authors' files without conversion; this is for other
programs and for sharing weights.
"""

import argparse
from pathlib import Path

from . import options

HELP = 'convert a checkpoint to OpenMMLab names or .safetensors'
EXAMPLE = 'mmpaca convert work_dirs/paca/epoch_12.pth paca.safetensors'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add both files and the task."""
    src = parser.add_argument('src', metavar='SRC', help='checkpoint to read')
    dst = parser.add_argument(
        'dst', metavar='DST', nargs='?', help='file to write (default: SRC with .safetensors)'
    )
    parser.add_argument(
        '--task',
        choices=('backbone', 'classifier', 'detector'),
        help="names for an official file: PaCaViT's, mmpretrain's or mmdet's (default: those of "
        'the classifier or detector in the file)',
    )
    options.completed(src, options.FILE)
    options.completed(dst, options.FILE)


def run(args: argparse.Namespace) -> None:
    """Convert."""
    from mmpaca import plugin

    plugin.install()
    from mmpaca.apis.convert import convert

    dst = args.dst or str(Path(args.src).with_suffix('.safetensors'))
    written, read = convert(args.src, dst, args.task)
    dropped = f' ({read - written} dropped)' if written < read else ''
    print(f'wrote {written} tensors to {dst}{dropped}')
