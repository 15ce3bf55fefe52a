"""The configuration text in a checkpoint: parsed before mmengine runs it.

Runner stores ``cfg.pretty_text``: assignments of literals. mmengine executes it as a Python file
when an inferencer is built from weights alone, and when a run is resumed from a file with
``meta['config']``. It also imports what ``custom_imports``, a scope or a dotted ``type`` names.
"""

import ast
import importlib.util
import inspect
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from mmengine.registry import Registry
from mmengine.utils import get_object_from_string

# Where mmengine and mmdet look for the text.
_PLACES = (('message_hub', 'runtime_info', 'cfg'), ('meta', 'cfg'), ('meta', 'config'))
# What a configuration may import without being imported already.
_PACKAGES = {'mmpaca', 'mmengine', 'mmcv', 'mmdet', 'mmpretrain', 'mmseg'}
_TORCH = (torch.nn.Module, torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler)
_MAX_LENGTH = 2**22
# Other nodes do nothing: names, attributes, operators.
_ACTIVE = (
    ast.Call, ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp, ast.Await,
    ast.Yield, ast.YieldFrom, ast.JoinedStr, ast.NamedExpr, ast.Subscript, ast.Starred,
)  # fmt: skip


class CodeInConfigError(ValueError):
    """A configuration text calls, imports or defines something."""


def parse_config(text: str) -> dict[str, Any]:
    r"""Read what ``Config.pretty_text`` writes, without running it.

    Args:
        text: assignments of numbers, strings, None, lists, tuples, sets, dicts and
            ``dict(name=value)``.

    Returns:
        ``{name: value}``.

    Raises:
        CodeInConfigError: it does something; says what and in which line.
        ValueError: it is something else, or mmengine would change it (``{{...}}``, ``_base_``).

    Example:
        >>> parse_config("lr = -0.1\nmodel = dict(type='X', sizes=[(1, 2)])")
        {'lr': -0.1, 'model': {'type': 'X', 'sizes': [(1, 2)]}}
    """
    if len(text) > _MAX_LENGTH or '{{' in text or '\r' in text:
        raise ValueError(f'{len(text)} characters, or "{{{{" in them')
    try:
        tree = ast.parse(text)
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError(f'no Python: {error}') from None
    _refuse_code(tree)
    config: dict[str, Any] = {}
    for statement in tree.body:
        if isinstance(statement, ast.Expr):
            _literal(statement.value)
            continue
        assert isinstance(statement, ast.Assign)
        target = statement.targets[0]
        value = _literal(statement.value)
        if len(statement.targets) > 1 or not isinstance(target, ast.Name):
            raise ValueError(_quoted(statement))
        config[_plain(target.id)] = value
    return config


def _refuse_code(tree: ast.Module) -> None:
    for node in tree.body:
        if not isinstance(node, ast.Expr | ast.Assign):
            raise CodeInConfigError(_quoted(node))
    for part in ast.walk(tree):
        match part:
            case ast.Call(func=ast.Name(id='dict' | 'set')):
                pass
            case _ if isinstance(part, _ACTIVE):
                raise CodeInConfigError(_quoted(part))


def _literal(node: ast.expr) -> Any:
    match node:
        case ast.Constant(value=value) if value is not Ellipsis:
            return value
        case ast.List(elts=items):
            return [_literal(item) for item in items]
        case ast.Tuple(elts=items):
            return tuple(_literal(item) for item in items)
        case ast.Set(elts=items):
            return {_key(item) for item in items}
        case ast.Dict(keys=keys, values=values):
            return {_key(k): _literal(v) for k, v in zip(keys, values, strict=True)}
        case ast.Call(func=ast.Name(id='dict'), args=[], keywords=keywords):
            return {_plain(keyword.arg): _literal(keyword.value) for keyword in keywords}
        case ast.Call(func=ast.Name(id='set'), args=[], keywords=[]):
            return set()
        case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=ast.Constant(value=int() | float())):
            return ast.literal_eval(node)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            parts = [_literal(left), _literal(right)]
            if all(isinstance(part, str) for part in parts):
                return parts[0] + parts[1]
    raise ValueError(_quoted(node))


def _key(node: ast.expr | None) -> Any:
    if node is None:  # **other
        raise ValueError('** in a dict')
    key = _literal(node)
    hash(key)
    return _plain(key) if isinstance(key, str) else key


def _plain(name: str | None) -> str:
    """A name that neither Python nor mmengine nor numpy takes for a special one."""
    if name is None or name.startswith('__') or name in ('_base_', 'dict', 'set'):
        raise ValueError(f'the name {name}')
    return name


def _quoted(node: ast.AST) -> str:
    try:
        text = ast.unparse(node)
    except RecursionError:
        text = type(node).__name__
    return f'line {getattr(node, "lineno", "?")}, {text[:80]}'


def foreign_names(config: dict[str, Any]) -> Iterator[str]:
    """Name what building from a configuration would import or call outside of OpenMMLab.

    Args:
        config: as :func:`parse_config` returns it.

    Yields:
        E.g. ``type='os.system'``. Modules that are imported already, and classes of OpenMMLab and
        torch's modules, optimizers and schedulers, are not named.
    """
    imports = config.get('custom_imports') or {}
    modules = imports.get('imports') if isinstance(imports, dict) else imports
    for module in [modules] if isinstance(modules, str) else modules or []:
        if module not in sys.modules and str(module).partition('.')[0] not in _PACKAGES:
            yield f'custom_imports of {module!r}'
    yield from _foreign_types(config, _registered())


def _foreign_types(value: Any, registered: set[str]) -> Iterator[str]:
    if isinstance(value, dict):
        for key in ('default_scope', '_scope_'):
            scope = value.get(key)
            if (
                scope is not None
                and scope not in _PACKAGES
                and f'{scope}.registry' not in sys.modules
            ):
                yield f'{key}={scope!r}'
        kind = value.get('type')
        if isinstance(kind, str) and kind not in registered and not _is_known_type(kind):
            yield f'type={kind!r}'
    if isinstance(value, dict | list | tuple):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _foreign_types(part, registered)


def _is_known_type(name: str) -> bool:
    """True if mmengine imports nothing foreign for a name that is in no registry."""
    root, _, rest = name.partition('.')
    if not rest:
        return root.isidentifier() and importlib.util.find_spec(root) is None
    if root not in _PACKAGES | {'torch'}:
        return False
    found = get_object_from_string(name)
    if not inspect.isclass(found):
        return found is None and root in _PACKAGES and '.' not in rest
    return issubclass(found, _TORCH) or found.__module__.partition('.')[0] in _PACKAGES


def _registered() -> set[str]:
    """The names in all registries, with their scope and without it."""
    import mmengine.registry

    names: set[str] = set()
    left = [value for value in vars(mmengine.registry).values() if isinstance(value, Registry)]
    while left:
        registry = left.pop()
        left += registry.children.values()
        for name in registry.module_dict:
            names |= {name, f'{registry.scope}.{name}'}
    return names


def check_configs(checkpoint: Any, filename: str) -> None:
    """Leave in a checkpoint only such configuration texts as mmengine may run.

    A text that cannot be parsed or that would import foreign modules is removed, with a warning:
    the weights do not need it.

    Args:
        checkpoint: changed in place.
        filename: for the messages.

    Raises:
        CodeInConfigError: a text contains code.
    """
    for *parents, key in _PLACES:
        holder = checkpoint
        for parent in parents:
            holder = holder.get(parent) if isinstance(holder, dict) else None
        if not isinstance(holder, dict) or not isinstance(holder.get(key), str):
            continue
        place = '.'.join([*parents, key])
        try:
            foreign = list(foreign_names(parse_config(holder[key])))
            reason = ', '.join(foreign) and f'it names {", ".join(foreign)}: import these first'
        except CodeInConfigError as error:
            raise CodeInConfigError(f'{place} contains code ({error})') from None
        except (ValueError, TypeError, RecursionError) as error:
            reason = f'it is not made of literals ({error})'
        if reason:
            del holder[key]
            warnings.warn(
                f'checkpoint {filename}: the configuration in {place} is ignored, {reason}',
                stacklevel=2,
            )
