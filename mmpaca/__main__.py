"""The command ``mmpaca``, also ``python -m mmpaca``: a table of subcommands, a parser, a call."""

import argparse
import importlib
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from mmpaca import __version__
from mmpaca.commands.reporting import report

#: Subcommands by group, in the order of the help. Each is a module of :mod:`mmpaca.commands`.
GROUPS = {
    'train and test': ('train', 'test'),
    'apply a model': ('predict', 'clusters', 'export', 'convert'),
    'inspect': ('configs', 'check-data', 'flops', 'benchmark', 'explain-eval', 'doctor'),
}


class HelpFormatter(argparse.HelpFormatter):
    """Wraps the paragraphs of a description, keeps indented ones, and shows defaults."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        paragraphs = text.strip().split('\n\n')
        fill = super()._fill_text
        return '\n\n'.join(
            paragraph
            if ' ' in (paragraph[0], paragraph.partition('\n')[2][:1])
            else fill(paragraph, width, indent)
            for paragraph in paragraphs
        )

    def _get_help_string(self, action: argparse.Action) -> str | None:
        shown = action.default not in (None, False, argparse.SUPPRESS, [])
        if shown and action.help and '(default' not in action.help:
            return f'{action.help} (default: %(default)s)'
        return action.help


class PrintCompletion(argparse.Action):
    """Print a completion script for a shell and exit."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Print the script for the shell ``values``."""
        try:
            import shtab
        except ModuleNotFoundError:
            parser.error(f'{option_string} needs shtab; run: pip install shtab')
        print(shtab.complete(build_parser(listed=True), values))
        parser.exit()


def load(name: str) -> ModuleType:
    """Import the module of a subcommand, e.g. ``check-data``."""
    return importlib.import_module(f'mmpaca.commands.{name.replace("-", "_")}')


def build_parser(listed: bool = False) -> argparse.ArgumentParser:
    """Build the parser of all subcommands; nothing of the stack is imported.

    Args:
        listed: let argparse list the subcommands, too. shtab needs that; the help has groups.
    """
    modules: dict[str, ModuleType] = {}
    groups = []
    for title, names in GROUPS.items():
        groups.append(f'{title}:')
        for name in names:
            modules[name] = load(name)
            groups.append(f'  {name:<13} {modules[name].HELP}')
        groups.append('')
    parser = argparse.ArgumentParser(
        'mmpaca',
        usage='mmpaca [-h] [--version] [--traceback] SUBCOMMAND ...',
        description='PaCa-ViT for OpenMMLab.\n\n' + '\n'.join(groups).rstrip(),
        epilog='mmpaca SUBCOMMAND -h explains a subcommand and gives an example.',
        formatter_class=HelpFormatter,
    )
    parser.add_argument('--version', action='version', version=f'mmpaca {__version__}')
    parser.add_argument('--traceback', action='store_true', help='print the traceback of an error')
    parser.add_argument(
        '--print-completion',
        action=PrintCompletion,
        choices=('bash', 'zsh', 'tcsh'),
        help='print a completion script for a shell',
    )
    subparsers = parser.add_subparsers(
        dest='subcommand',
        metavar='SUBCOMMAND',
        prog='mmpaca',
        help=None if listed else argparse.SUPPRESS,
    )
    for name, module in modules.items():
        subparser = subparsers.add_parser(
            name,
            help=module.HELP,
            description=module.__doc__,
            epilog=f'example:\n  {module.EXAMPLE}',
            formatter_class=HelpFormatter,
        )
        module.add_arguments(subparser)
        subparser.set_defaults(run=module.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand.

    Args:
        argv: arguments without the program's name; None for those of the process.

    Returns:
        The exit status: 0, or 1 for an error, which is printed in one line.

    Raises:
        SystemExit: with status 2 and the usage for wrong arguments, with 0 after a help text.
    """
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.subcommand is None:
        parser.print_help()
        return 0
    return report(lambda: args.run(args), traceback=args.traceback)


if __name__ == '__main__':
    sys.exit(main())
