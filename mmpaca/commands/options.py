"""Arguments that several subcommands share: the same names, types and help everywhere."""

import argparse
import math
from collections.abc import Callable
from typing import Any

# How shells complete an argument, as shtab reads it.
FILE = {'bash': '_shtab_compgen_files', 'zsh': '_files', 'tcsh': 'f'}
FOLDER = {'bash': '_shtab_compgen_dirs', 'zsh': '_files -/', 'tcsh': 'd'}


def completed(action: argparse.Action, how: dict[str, str]) -> argparse.Action:
    """Let shells complete an argument with files or folders."""
    action.complete = how  # type: ignore[attr-defined]
    return action


def add_config(parser: argparse.ArgumentParser, **kwargs: Any) -> None:
    """Add ``CONFIG``, for :func:`mmpaca.apis.configs.find_config`."""
    action = parser.add_argument(
        'config',
        metavar='CONFIG',
        help='config file (a Python file is executed), or a name listed by `mmpaca configs`',
        **kwargs,
    )
    completed(action, FILE)


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    """Add ``CHECKPOINT``, for :func:`mmpaca.apis.configs.find_checkpoint`."""
    action = parser.add_argument(
        'checkpoint',
        metavar='CHECKPOINT',
        help='checkpoint file or URL, or `published` for the released weights of CONFIG',
    )
    completed(action, FILE)


def add_inputs(parser: argparse.ArgumentParser, kinds: str = 'image files, folders, globs') -> None:
    """Add ``INPUTS...``."""
    action = parser.add_argument('inputs', metavar='INPUTS', nargs='+', help=kinds)
    completed(action, FILE)


def add_out_dir(parser: argparse.ArgumentParser, default: str) -> None:
    """Add ``--out-dir``."""
    action = parser.add_argument('--out-dir', metavar='DIR', default=default, help='output folder')
    completed(action, FOLDER)


def add_score_thr(parser: argparse.ArgumentParser) -> None:
    """Add ``--score-thr``."""
    parser.add_argument(
        '--score-thr',
        metavar='SCORE',
        type=fraction,
        default=0.3,
        help='minimum score of a detection, 0 to 1',
    )


def add_device(parser: argparse._ActionsContainer) -> None:
    """Add ``--device``, for :func:`mmpaca.apis.devices.find_device`."""
    parser.add_argument(
        '--device', help='cpu, cuda or cuda:N (default: the first GPU if there is one, else cpu)'
    )


def add_cfg_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--cfg-options``, for :func:`mmpaca.apis.configs.read_config`."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        type=key_value,
        metavar='KEY=VALUE',
        help='override entries of the config, e.g. model.backbone.arch=tiny',
    )


def add_shape(parser: argparse._ActionsContainer, default: str) -> None:
    """Add ``--shape``, one or two numbers that are stored as (height, width).

    Args:
        parser: parser of a subcommand, or a group of its arguments.
        default: for the help; without ``--shape`` None is stored.
    """
    parser.add_argument(
        '--shape',
        type=at_least(1),
        nargs='+',
        action=Shape,
        metavar=('H', 'W'),
        help=f'input size in pixels, one number for a square (default: {default})',
    )


class Shape(argparse.Action):
    """Store ``(height, width)`` of one or two numbers."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Refuse more than two numbers."""
        if len(values) > 2:
            parser.error(f'{option_string} takes one or two numbers, got {len(values)}')
        setattr(namespace, self.dest, (values[0], values[-1]))


def key_value(text: str) -> str:
    """Type of ``--cfg-options``."""
    if '=' not in text:
        raise argparse.ArgumentTypeError(f'{text!r} is invalid, give KEY=VALUE')
    return text


def at_least(minimum: int) -> Callable[[str], int]:
    """Type of an option that takes whole numbers from ``minimum`` on."""

    def integer(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = minimum - 1
        if value < minimum:
            raise argparse.ArgumentTypeError(
                f'{text!r} is invalid, give a whole number >= {minimum}'
            )
        return value

    return integer


def fraction(text: str) -> float:
    """Type of an option that takes numbers from 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:  # NaN is not, either
        raise argparse.ArgumentTypeError(f'{text!r} is invalid, give a number from 0 to 1')
    return value
