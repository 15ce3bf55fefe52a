"""List the names of configs.

Parameters, multiply-accumulates and published accuracy are shown where they are known. A config is
listed if its name or task contains all of the words.
"""

import argparse

HELP = 'list the names of configs'
EXAMPLE = 'mmpaca configs mask-rcnn 1x'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the words to search for."""
    parser.add_argument('words', metavar='WORD', nargs='*', help='part of a name or task')


def run(args: argparse.Namespace) -> None:
    """Print a line per config."""
    from mmpaca.apis.configs import list_configs

    def normalised(text: str) -> str:
        return text.lower().replace('_', '-')

    found = [
        info
        for info in list_configs()
        if all(normalised(word) in normalised(f'{info.name} {info.task}') for word in args.words)
    ]
    if not found:
        raise ValueError(f'no config matches {" ".join(args.words)}')
    width = max(len(info.name) for info in found)
    print(f'{"name":<{width}}  {"M params":>8} {"GMAC":>6}  published')
    for info in found:
        params = '' if info.params is None else f'{info.params / 1e6:.1f}'
        macs = '' if info.macs is None else f'{info.macs / 1e9:.3g}'
        metrics = ', '.join(f'{name} {value:g}' for name, value in info.metrics.items())
        print(f'{info.name:<{width}}  {params:>8} {macs:>6}  {metrics}'.rstrip())
