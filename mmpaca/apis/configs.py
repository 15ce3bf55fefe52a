"""Configs by name from any directory, and what the metafiles say of them.

Nothing but PyYAML is imported before a config is read.
"""

import difflib
import functools
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml  # type: ignore[import-untyped]

if TYPE_CHECKING:
    from mmengine.config import Config

SUFFIXES = ('.py', '.yaml', '.yml', '.json')  # the formats of mmengine's configs
PUBLISHED = 'published'
# Of configs without published figures, by their folder.
_TASKS = {
    'classification': 'Image Classification',
    'segmentation': 'Semantic Segmentation',
    'camvid': 'Semantic Segmentation',
}
_PACKAGE = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class ConfigInfo:
    """A config of mmpaca.

    Attributes:
        name: file name without suffix, or an alias.
        path: absolute path.
        task: e.g. ``'Object Detection'``; empty where no metafile lists the config.
        params: number of parameters, if known.
        macs: multiply-accumulates of a forward pass, if known.
        metrics: published figures by name, e.g. ``{'box AP': 43.3}``.
        weights: URL of the published weights, if there are any.
        alias: name of the config that this one is a second name of; empty for none.
    """

    name: str
    path: Path
    task: str = ''
    params: int | None = None
    macs: int | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    weights: str | None = None
    alias: str = ''


def config_dir() -> Path:
    """Return the folder of mmpaca's configs: in an installed package, or beside it in a checkout.

    Raises:
        FileNotFoundError: the configs are in neither place.
    """
    for folder in (_PACKAGE / '.mim' / 'configs', _PACKAGE.parent / 'configs'):
        if (folder / 'mask_rcnn_paca.py').is_file():
            return folder
    raise FileNotFoundError(
        f'the configs of mmpaca are neither in {_PACKAGE}/.mim nor beside {_PACKAGE}; reinstall it'
    )


@functools.cache
def list_configs() -> tuple[ConfigInfo, ...]:
    """Return all configs of mmpaca, those with an entry in a metafile first."""
    root = config_dir()
    infos = []
    for metafile in sorted(root.glob('*/metafile.yml')):
        for model in yaml.safe_load(metafile.read_text())['Models']:
            infos.append(_from_metafile(model, root))
            aliases = (root / f'{alias}.py' for alias in model.get('Alias', ()))
            infos += [_from_metafile(model, root, alias) for alias in aliases]
    known = {info.path for info in infos}
    for path in sorted(root.rglob('*.py')):
        if '_base_' not in path.parts and path not in known:
            infos.append(ConfigInfo(path.stem, path))
    return tuple(infos)


def _from_metafile(model: dict[str, Any], root: Path, path: Path | None = None) -> ConfigInfo:
    own = root.parent / model['Config']
    results = model.get('Results', ())
    return ConfigInfo(
        (path or own).stem,
        path or own,
        _task_of(own, results),
        model['Metadata'].get('Parameters'),
        model['Metadata'].get('FLOPs'),
        {name: value for result in results for name, value in result['Metrics'].items()},
        model.get('Weights'),
        own.stem if path else '',
    )


def _task_of(path: Path, results: Sequence[dict]) -> str:
    if results:
        return results[-1]['Task']
    return _TASKS.get(path.parent.name, 'Object Detection')


def find_config(text: str) -> str:
    """Resolve a config from any directory.

    Args:
        text: path of a config file; or a config of mmpaca by name (``mask_rcnn_paca``,
            ``mask-rcnn_paca-s_1x_coco``, with or without ``.py``) or by its path below
            ``configs/``; or a config of an installed package, e.g.
            ``mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py``.

    Returns:
        Path of the file.

    Raises:
        FileNotFoundError: there is no such config; the error names similar ones.
        ValueError: it is a file, but no config.
    """
    scope, separator, relative = text.rpartition('::')
    if separator and scope != 'mmpaca':
        return _of_package(scope, relative)
    path = Path(text).expanduser()
    if path.is_file():
        if path.suffix not in SUFFIXES:
            raise ValueError(
                f'{text} is not a config, which ends in {", ".join(SUFFIXES)}; '
                'the config comes before the checkpoint'
            )
        return str(path)
    wanted = relative.removeprefix('configs/').removesuffix('.py')
    by_name = {info.name: info.path for info in list_configs()}
    by_path = {str(p.relative_to(config_dir()).with_suffix('')): p for p in by_name.values()}
    found = by_name.get(wanted) or by_path.get(wanted)
    if found is None:
        close = difflib.get_close_matches(Path(wanted).name, by_name, n=3)
        similar = f'similar: {", ".join(close)}; ' if close else ''
        raise FileNotFoundError(
            f'config {text} is neither a file nor a config of mmpaca; '
            f'{similar}`mmpaca configs` lists all'
        )
    return str(found)


def _of_package(package: str, relative: str) -> str:
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    folders = spec.submodule_search_locations or [] if spec else []
    for folder in folders:
        path = Path(folder, '.mim', 'configs', relative)
        if path.is_file():
            return str(path)
    reason = 'has no such config' if spec else 'is not installed'
    raise FileNotFoundError(f'config {package}::{relative} does not exist: {package} {reason}')


def find_checkpoint(text: str, config: str) -> str:
    """Resolve a checkpoint.

    Args:
        text: path, URL, or ``'published'`` for the weights that a metafile names for the config.
        config: path of the config, see :func:`find_config`.

    Returns:
        Path or URL.

    Raises:
        ValueError: no weights are published for this config.
    """
    if text != PUBLISHED:
        return text
    path = Path(config).resolve()
    for info in list_configs():
        if info.path.resolve() == path and info.weights:
            return info.weights
    raise ValueError(f'no weights are published for {path.stem}: give a checkpoint file or URL')


def read_file(path: str, import_custom_modules: bool = True) -> 'Config':
    """Read a config file.

    Args:
        path: see :func:`find_config`.
        import_custom_modules: import what ``custom_imports`` names.

    Raises:
        FileNotFoundError: a config that it inherits from is missing.
        ValueError: it cannot be parsed.
    """
    from mmengine.config import Config

    try:
        return Config.fromfile(path, import_custom_modules=import_custom_modules)
    except (SyntaxError, AttributeError, KeyError, NameError, TypeError, yaml.YAMLError) as error:
        raise ValueError(
            f'config {path} cannot be read: {type(error).__name__}: {error}'
        ) from error


def read_config(text: str, cfg_options: Sequence[str] | None = None) -> 'Config':
    """Find and read a config.

    Args:
        text: see :func:`find_config`.
        cfg_options: ``KEY=VALUE`` strings of ``--cfg-options``.

    Raises:
        FileNotFoundError: there is no such config, or one that it inherits from is missing.
        ValueError: the file cannot be parsed, or describes no model.
    """
    from mmengine.config import DictAction

    path = find_config(text)
    config = read_file(path)
    options = dict(option.split('=', 1) for option in cfg_options or ())
    config.merge_from_dict({k: DictAction._parse_iterable(v) for k, v in options.items()})
    check_model(config, path)
    return config


def check_model(config: 'Config', path: str | None) -> None:
    """Refuse a config without a model.

    Raises:
        ValueError: there is no ``model``.
    """
    if 'model' not in config:
        raise ValueError(f'config {path} has no `model`: is it the config of a detector?')
