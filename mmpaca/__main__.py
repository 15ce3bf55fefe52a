"""The command ``mmpaca``, also ``python -m mmpaca``."""

import argparse
import sys
from collections.abc import Sequence

from mmpaca import __version__


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand.

    Args:
        argv: without the program's name; None for the process's own.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser('mmpaca', description='PaCa-ViT for OpenMMLab')
    parser.add_argument('--version', action='version', version=f'mmpaca {__version__}')
    commands = parser.add_subparsers(dest='command', required=True, metavar='COMMAND')
    commands.add_parser(
        'doctor',
        help='check this installation',
        description='Print the versions of all that mmpaca builds on, run its operators and its '
        'backbone on every device, and say in a sentence what is wrong and the command that mends '
        'it. Ends with status 1 if anything is wrong, else with 0.',
    )
    parser.parse_args(argv)

    from mmpaca.doctor import run

    return run()


if __name__ == '__main__':
    sys.exit(main())
