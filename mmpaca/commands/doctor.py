"""Check this installation.

Prints the versions of all packages that mmpaca builds on, runs its operators and its backbone on
every device, and names each fault with the command that fixes it. The exit status is 1 if anything
is wrong.
"""

import argparse

HELP = 'check this installation'
EXAMPLE = 'mmpaca doctor'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add nothing: the doctor takes no arguments."""


def run(args: argparse.Namespace) -> int:
    """Print versions and findings."""
    from mmpaca.doctor import run as run_doctor

    return run_doctor()
