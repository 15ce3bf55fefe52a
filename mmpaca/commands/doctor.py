"""Check this installation.

Prints the versions of all packages that mmpaca builds on, runs its operators and its backbone on
every device, and names each fault with the command that fixes it. The exit status is 1 if anything
is wrong.
"""

import argparse
from pathlib import Path

from . import options

HELP = 'check this installation'
EXAMPLE = 'mmpaca doctor'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the check of a GPU."""
    parser.add_argument(
        '--gpu',
        action='store_true',
        help='prove numbers, training and speed on a GPU instead, in at most 10 minutes without '
        'network or data; writes a report',
    )
    options.add_device(parser)
    parser.add_argument('--quick', action='store_true', help='with --gpu: small sizes')
    options.add_out_dir(parser, default='work_dirs/gpu_check')


def run(args: argparse.Namespace) -> int:
    """Print versions and findings.

    Raises:
        ValueError: there is no GPU to check, and --device does not name the CPU.
    """
    if args.gpu:
        return _check_gpu(args)
    from mmpaca.doctor import run as run_doctor

    return run_doctor()


def _check_gpu(args: argparse.Namespace) -> int:
    from mmpaca import plugin

    plugin.install()
    from mmpaca.apis.devices import find_device
    from mmpaca.apis.outputs import check_out_dir
    from mmpaca.doctor.gpu import main

    device = find_device(args.device)
    if device == 'cpu' and args.device != 'cpu':
        raise ValueError('--gpu: no usable GPU here; --device cpu --quick tests the logic')
    return main(device, args.quick, Path(check_out_dir(args.out_dir, '--out-dir')))
