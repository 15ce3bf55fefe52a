"""Count parameters and multiply-accumulates (what papers call FLOPs), attention included.

With --published, compares them with the authors' figures in the metafiles: ImageNet at 224x224,
detectors at 1280x800. The counters behind those took four times too much for the transposed
convolution of the mask head (15.4 G in all); the comparison counts as they did.
"""

import argparse
from pathlib import Path

import yaml
from mmengine.config import Config, DictAction
from terminaltables import AsciiTable

import mmpaca  # noqa: F401  (before mmdet's models)
from mmpaca.analysis.model import model_cost
from mmpaca.plugin.config_scope import config_dir

TOLERANCE = 0.015
PUBLISHED_SHAPES = {'Image Classification': (224, 224), 'Object Detection': (800, 1280)}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', nargs='?', help='config file; optional with --published')
    parser.add_argument(
        '--shape', nargs='+', type=int, metavar=('H', 'W'), help='input size; default: 800 1280'
    )
    parser.add_argument('--depth', type=int, help='levels of modules in the table; default: 2')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help='override the config')
    parser.add_argument(
        '--published', action='store_true', help="compare with the authors' figures"
    )
    args = parser.parse_args()
    if not args.config and not args.published:
        parser.error('give a config file, or --published')
    if args.published:
        for name in ('shape', 'depth', 'cfg_options'):
            if getattr(args, name) is not None:
                option = '--' + name.replace('_', '-')
                parser.error(f'{option} does not go with --published, which compares as published')
    args.shape = [800, 1280] if args.shape is None else args.shape
    args.depth = 2 if args.depth is None else args.depth
    if len(args.shape) > 2:
        parser.error(f'--shape takes a side or a height and a width, got {args.shape}')
    return args


def print_modules(config: Config, shape: tuple[int, int], depth: int) -> None:
    cost = model_cost(config, shape)
    cells = [['module', 'GMAC', 'of all']]
    for name, macs in sorted(cost.macs_by_module.items()):
        if macs and name.count('.') < depth:
            cells.append([name or 'all', f'{macs / 1e9:.3f}', f'{macs / cost.macs:.1%}'])
    print(AsciiTable(cells).table)
    print(
        f'input {shape[0]}x{shape[1]}: {cost.macs / 1e9:.2f} GMAC, '
        f'{cost.params / 1e6:.2f} M parameters, '
        f'{cost.saved_bytes / 2**20:.0f} MiB saved for a backward pass'
    )


def published_models() -> list[dict]:
    """The models of the metafiles whose costs the authors published."""
    paths = sorted(config_dir().glob('*/metafile.yml'))
    models = [model for path in paths for model in yaml.safe_load(path.read_text())['Models']]
    return [model for model in models if 'Results' in model]


def compare(model: dict) -> tuple[list[str], bool]:
    """A row of the table, and whether both figures are reproduced."""
    shape = next(
        PUBLISHED_SHAPES[r['Task']] for r in model['Results'] if r['Task'] in PUBLISHED_SHAPES
    )
    config = Config.fromfile(config_dir().parent / model['Config'])
    cost = model_cost(config, shape, published_convention=True)
    row, fits = [model['Name']], True
    for ours, theirs, unit in (
        (cost.params, model['Metadata']['Parameters'], 1e6),
        (cost.macs, model['Metadata']['FLOPs'], 1e9),
    ):
        error = ours / theirs - 1
        fits &= abs(error) <= TOLERANCE
        row += [f'{ours / unit:.2f}', f'{theirs / unit:g}', f'{error:+.1%}']
    return [*row, '' if fits else 'contradicts'], fits


def print_published(only: Path | None) -> None:
    models = published_models()
    if only is not None:
        models = [model for model in models if Path(model['Config']).name == only.name]
        if not models:
            raise SystemExit(f'error: no published figures for {only} in the metafiles')
    cells = [['model', 'params (M)', 'published', '', 'GMAC', 'published', '', '']]
    contradicting = []
    for model in models:
        row, fits = compare(model)
        print('  '.join(row), flush=True)
        cells.append(row)
        if not fits:
            contradicting.append(model['Name'])
    print(AsciiTable(cells).table)
    print(f'{len(models) - len(contradicting)} of {len(models)} within {TOLERANCE:.1%}')
    if contradicting:
        print('published figures that the architecture contradicts: ' + ', '.join(contradicting))


def main() -> None:
    args = parse_args()
    if args.published:
        print_published(args.config and Path(args.config))
        return
    config = Config.fromfile(args.config)
    if args.cfg_options:
        config.merge_from_dict(args.cfg_options)
    print_modules(config, (args.shape[0], args.shape[-1]), args.depth)


if __name__ == '__main__':
    main()
