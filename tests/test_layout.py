"""Imports point down: which rooms of the house may use which."""

import ast
from pathlib import Path

import pytest
from commands import ROOT

PACKAGE = ROOT / 'mmpaca'
# From the top to the bottom; a room may import what stands with it or below.
STOREYS = [
    {'__main__', 'commands', 'doctor'},
    {'apis'},
    {'engine', 'evaluation', 'explain', 'analysis', 'deploy'},
    {'checkpoint', 'datasets'},
    {'models'},
    {'ops', 'registry', 'compat', 'version'},
]
STOREY = {room: floor for floor, rooms in enumerate(STOREYS) for room in rooms}
OPENMMLAB = {'mmdet', 'mmpretrain', 'mmseg'}


def imports(path: Path) -> set[str]:
    """Full names of all modules, and names in them, that a file imports anywhere."""
    package = ('mmpaca', *path.relative_to(PACKAGE).parts)[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            parts = package[: len(package) + 1 - node.level] if node.level else ()
            module = '.'.join([*parts, *filter(None, [node.module])])
            found |= {f'{module}.{name.name}' for name in node.names}
    return found


def room(module: str) -> str:
    """``'models'`` of ``'mmpaca.models.archs.ARCHS'``."""
    return module.split('.')[1]


FILES = sorted(PACKAGE.rglob('*.py'))
FILES = [path for path in FILES if '.mim' not in path.parts]


def test_every_room_has_its_storey():
    rooms = {path.relative_to(PACKAGE).parts[0].removesuffix('.py') for path in FILES}
    assert rooms == {*STOREY, '__init__', 'plugin'}


# The plugin wires all rooms together, and so does the package's own __init__.
@pytest.mark.parametrize(
    'path',
    [p for p in FILES if p.relative_to(PACKAGE).parts[0] not in ('__init__.py', 'plugin')],
    ids=lambda path: str(path.relative_to(PACKAGE)),
)
def test_imports_point_down(path):
    here = room('.'.join(('mmpaca', *path.relative_to(PACKAGE).with_suffix('').parts)))
    used = {m for m in imports(path) if m.startswith('mmpaca.') and room(m) in STOREY}
    assert {m for m in used if STOREY[room(m)] < STOREY[here]} == set()
    if here == 'models':
        assert {m for m in imports(path) if m.split('.')[0] in OPENMMLAB} == set()
    if here == 'ops':
        assert {m for m in used if room(m) != 'ops'} == set()


def changes_other_packages(path: Path) -> list[str]:
    """Assignments to attributes of what a file imports from elsewhere."""
    names = {m.split('.')[-1] for m in imports(path) if not m.startswith('mmpaca.')}
    names |= {m.split('.')[0] for m in imports(path) if not m.startswith('mmpaca.')}
    changed = []
    for node in ast.walk(ast.parse(path.read_text())):
        targets = node.targets if isinstance(node, ast.Assign) else []
        for target in targets:
            owner = target
            while isinstance(owner, ast.Attribute | ast.Subscript):
                owner = owner.value
            if owner is not target and isinstance(owner, ast.Name) and owner.id in names:
                changed.append(ast.unparse(target))
    return changed


@pytest.mark.parametrize(
    'path',
    [p for p in FILES if p.relative_to(PACKAGE).parts[0] != 'plugin'],
    ids=lambda path: str(path.relative_to(PACKAGE)),
)
def test_only_the_plugin_changes_other_packages(path):
    # A tool's own command line is the process's, not a package's.
    assert set(changes_other_packages(path)) <= {'sys.argv'}
