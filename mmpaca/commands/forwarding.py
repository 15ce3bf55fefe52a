"""Shared by ``train`` and ``test``: flags that are forwarded to the codebase's tool."""

import argparse
from collections.abc import Sequence
from typing import Any

from . import options


class Forward(argparse.Action):
    """Collect a flag in ``forwarded``, as the tool reads it."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Append the flag with its values."""
        if isinstance(values, list):
            flag = [str(option_string), *values]
        elif values is None:
            flag = [str(option_string)]
        else:  # one argument, for the value may begin with a dash
            flag = [f'{option_string}={values}']
        namespace.forwarded = [*namespace.forwarded, *flag]


def add_flag(parser: argparse._ActionsContainer, *names: str, **kwargs: Any) -> None:
    """Add a flag that is forwarded; one without values unless ``nargs`` or ``metavar`` is given."""
    if not kwargs.keys() & {'nargs', 'metavar', 'choices'}:
        kwargs['nargs'] = 0
    parser.add_argument(*names, action=Forward, dest='forwarded', default=[], **kwargs)


def add_launch_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--nproc`` and ``--trust-checkpoint``."""
    parser.add_argument(
        '--nproc',
        metavar='N',
        type=options.at_least(1),
        help='start N processes with torchrun: one per GPU, or gloo processes on a CPU',
    )
    parser.add_argument(
        '--trust-checkpoint',
        action='store_true',
        help='full unpickling of checkpoints; executes code in them',
    )


def add_common_flags(parser: argparse._ActionsContainer) -> None:
    """Add the flags that the tools for training and testing share."""
    add_flag(parser, '--work-dir', metavar='DIR', help='folder of logs and results')
    add_flag(
        parser,
        '--cfg-options',
        nargs='+',
        type=options.key_value,
        metavar='KEY=VALUE',
        help='override entries of the config, e.g. train_dataloader.batch_size=4',
    )
    add_flag(
        parser,
        '--launcher',
        choices=('none', 'pytorch', 'slurm', 'mpi'),
        help='job launcher; set by --nproc and by tools/slurm_*.sh',
    )
    add_flag(parser, '--no-pin-memory', help='mmpretrain only')
    add_flag(parser, '--local_rank', '--local-rank', metavar='RANK', help=argparse.SUPPRESS)


def launch(tool: str, args: argparse.Namespace, paths: Sequence[str]) -> None:
    """Run a tool in this process, or with ``--nproc`` in several.

    Args:
        tool: ``'train'`` or ``'test'``.
        args: parsed arguments.
        paths: the config and, for testing, the checkpoint.
    """
    if args.nproc is not None:
        from mmpaca.apis.torchrun import torchrun

        trust = ['--trust-checkpoint'] if args.trust_checkpoint else []
        arguments = [tool, *paths, '--launcher', 'pytorch', *args.forwarded, *trust]
        return torchrun(args.nproc, arguments)
    from mmpaca import plugin

    plugin.install()
    from mmpaca.apis.launch import run_tool

    run_tool(f'{tool}.py', [*paths, *args.forwarded], args.trust_checkpoint)
