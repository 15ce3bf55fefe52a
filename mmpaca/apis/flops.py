"""Parameters and multiply-accumulates of the model of a config, and the published figures."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config
from terminaltables import AsciiTable  # type: ignore[import-untyped]

from mmpaca.analysis.model import model_cost

from .configs import ConfigInfo, list_configs

TOLERANCE = 0.015  # relative, of a published figure
# Those of segmentors have three digits, and tell apart variants that differ by 1 %.
SEG_TOLERANCES = (0.005, 0.01)  # parameters, multiply-accumulates
PUBLISHED_SHAPES = {
    'Image Classification': (224, 224),
    'Instance Segmentation': (800, 1280),
    'Semantic Segmentation': (512, 512),
}
_DEFAULT_SHAPES = {'mmpretrain': (224, 224), 'mmseg': (512, 512)}  # by default_scope


@dataclass(frozen=True)
class Comparison:
    """Figures of a config beside the published ones.

    Attributes:
        name: of the config.
        params: counted, and as published.
        macs: counted as the published figure was, and as published.
        tolerances: relative, of parameters and multiply-accumulates.
    """

    name: str
    params: tuple[int, int]
    macs: tuple[int, int]
    tolerances: tuple[float, float] = (TOLERANCE, TOLERANCE)

    @property
    def matches(self) -> bool:
        """True if both figures are within their tolerance."""
        return all(
            abs(ours / theirs - 1) <= tolerance
            for (ours, theirs), tolerance in zip(
                (self.params, self.macs), self.tolerances, strict=True
            )
        )

    def cells(self) -> list[str]:
        """Row of a table: name, and figure, published figure and error for both."""
        cells = [self.name]
        for (ours, theirs), unit in ((self.params, 1e6), (self.macs, 1e9)):
            cells += [f'{ours / unit:.2f}', f'{theirs / unit:g}', f'{ours / theirs - 1:+.1%}']
        return [*cells, '' if self.matches else 'contradicts']


def print_modules(config: Config, shape: tuple[int, int] | None, depth: int) -> None:
    """Print the multiply-accumulates of a model and its modules.

    Args:
        config: config of mmdet, mmpretrain or mmseg.
        shape: height and width of the input in pixels; None for 224x224 (classifiers), 512x512
            (segmentors) or 800x1280.
        depth: levels of modules in the table.

    Raises:
        ValueError: the model cannot process this shape.
    """
    if shape is None:
        shape = _DEFAULT_SHAPES.get(config.get('default_scope', ''), (800, 1280))
    try:
        cost = model_cost(config, shape)
    except RuntimeError as error:
        raise ValueError(f'--shape {shape[0]} {shape[1]}: {error}') from error
    cells = [['module', 'GMAC', 'share']]
    for name, macs in sorted(cost.macs_by_module.items()):
        if macs and name.count('.') < depth:
            cells.append([name or 'all', f'{macs / 1e9:.3f}', f'{macs / cost.macs:.1%}'])
    print(AsciiTable(cells).table)
    print(
        f'input {shape[0]}x{shape[1]}: {cost.macs / 1e9:.2f} GMAC, '
        f'{cost.params / 1e6:.2f} M parameters, '
        f'{cost.saved_bytes / 2**20:.0f} MiB saved for the backward pass'
    )


def published_configs(config: str | None = None) -> list[ConfigInfo]:
    """Return the configs with published figures.

    Args:
        config: path of the only one that is wanted; None for all.

    Raises:
        ValueError: nothing was published for it.
    """
    infos = [info for info in list_configs() if info.metrics and not info.alias]
    if config is not None:
        wanted = Path(config).resolve()
        names = {info.name for info in list_configs() if info.path.resolve() == wanted}
        paths = [info for info in list_configs() if info.name in names and info.alias]
        names |= {info.alias for info in paths}
        infos = [info for info in infos if info.name in names]
        if not infos:
            raise ValueError(f'no figures are published for {wanted.stem}')
    return infos


def compare_with_published(infos: list[ConfigInfo]) -> Iterator[Comparison]:
    """Count configs as the published figures were counted, one after the other."""
    for info in infos:
        if not info.params or not info.macs:
            raise ValueError(f'the metafile has no figures for {info.name}')
        cost = model_cost(
            Config.fromfile(info.path), PUBLISHED_SHAPES[info.task], published_convention=True
        )
        is_segmentor = info.task == 'Semantic Segmentation'
        yield Comparison(
            info.name,
            (cost.params, info.params),
            (cost.macs, info.macs),
            SEG_TOLERANCES if is_segmentor else (TOLERANCE, TOLERANCE),
        )


def _tolerances(compared: list[Comparison]) -> str:
    """Name each tolerance once, that of the parameters first where two differ."""
    pairs = dict.fromkeys(comparison.tolerances for comparison in compared)
    return ', '.join(' / '.join(f'{one:.1%}' for one in dict.fromkeys(pair)) for pair in pairs)


def print_published(config: str | None = None) -> None:
    """Print counted and published figures of all configs, or of one.

    Args:
        config: path of the config; None for all.

    Raises:
        ValueError: nothing was published for it.
    """
    head = ['model', 'params (M)', 'published', '', 'GMAC', 'published', '', '']
    compared = []
    for comparison in compare_with_published(published_configs(config)):
        print('  '.join(comparison.cells()), flush=True)
        compared.append(comparison)
    print(AsciiTable([head, *(comparison.cells() for comparison in compared)]).table)
    contradicted = [comparison.name for comparison in compared if not comparison.matches]
    print(f'{len(compared) - len(contradicted)} of {len(compared)} within {_tolerances(compared)}')
    if contradicted:
        print('published figures that the architecture contradicts: ' + ', '.join(contradicted))
