"""What the docs say exists: files, headings, commands and their flags, configs, tests."""

import re
import shlex
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import yaml
from markdown_it import MarkdownIt
from markdown_it.token import Token
from mmengine.config import Config

from mmpaca.models import PaCaViT

ROOT = Path(__file__).resolve().parent.parent
PAGES = [
    *(ROOT / name for name in ('README.md', 'CONTRIBUTING.md', 'CHANGELOG.md')),
    *sorted((ROOT / 'configs').rglob('*.md')),
    *sorted(p for p in (ROOT / 'docs').rglob('*.md') if '_build' not in p.parts),
]
# Flags of torchrun's and slurm's wrappers are those of the tool that they start.
STARTED = {
    f'tools/{launcher}_{tool}.sh': f'tools/{tool}.py'
    for launcher in ('dist', 'slurm')
    for tool in ('train', 'test')
}


@cache
def tokens(page: Path) -> list[Token]:
    """All tokens, inline ones included."""
    return [t for block in MarkdownIt().enable('table').parse(page.read_text())
            for t in (block, *(block.children or ()))]  # fmt: skip


def blocks(*languages: str) -> list[tuple[str, str]]:
    """Fenced blocks of code: where (for messages) and what."""
    return [
        (f'{page.relative_to(ROOT)}:{token.map[0] + 1}', token.content)
        for page in PAGES
        for token in tokens(page)
        if token.type == 'fence' and token.info in languages
    ]


@cache
def anchors(page: Path) -> set[str]:
    """Of a page's headings, as GitHub makes them."""
    found = tokens(page)
    titles = [
        after.content
        for t, after in zip(found, found[1:], strict=False)
        if t.type == 'heading_open'
    ]
    plain = [re.sub(r'\[([^]]*)\]\([^)]*\)|`', r'\1', title).lower() for title in titles]
    return {re.sub(r'[^\w\- ]', '', title).replace(' ', '-') for title in plain}


def broken(page: Path, target: str) -> bool:
    """Whether a link leads nowhere; other sites are not asked."""
    if re.match(r'(https?|mailto):', target):
        return False
    path, _, anchor = target.partition('#')
    file = page.parent / path if path else page
    return not file.exists() or bool(anchor and anchor not in anchors(file.resolve()))


@pytest.mark.parametrize('page', PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    links = [t.attrs.get('href') or t.attrs.get('src') for t in tokens(page)]
    included = re.findall(r'^```\{include\} (\S+)', page.read_text(), re.M)
    assert [link for link in (*links, *included) if link and broken(page, link)] == []


def test_a_broken_link_is_found(tmp_path):
    page = tmp_path / 'page.md'
    page.write_text('# A `b`: c\n[here](#a-b-c) [x](#a-b) [y](no.md) [z](page.md#d) ![i](i.png)')
    links = [t.attrs.get('href') or t.attrs.get('src') for t in tokens(page)]
    assert [link for link in links if link and broken(page, link)] == [
        '#a-b', 'no.md', 'page.md#d', 'i.png'
    ]  # fmt: skip


def commands() -> list[tuple[str, list[str]]]:
    """Every command of the shell blocks, without its environment variables."""
    found = []
    for where, text in blocks('bash', 'shell', 'sh'):
        for line in text.replace('\\\n', ' ').splitlines():
            words = shlex.split(line, comments=True)
            while words and re.match(r'\w+=', words[0]):
                words.pop(0)
            if words:
                found.append((where, words))
    return found


@cache
def source_of(tool: str) -> str:
    """Where a tool's flags are written down."""
    tool = STARTED.get(tool, tool)
    source = (ROOT / tool).read_text()
    if tool in ('tools/train.py', 'tools/test.py'):
        found = [spec for spec in map(find_spec, ('mmdet', 'mmpretrain')) if spec]
        theirs = [(Path(spec.origin).parent / '.mim' / tool).read_text() for spec in found]
        source = "'--trust-checkpoint'".join(theirs)
    if 'add_arguments(' in source:  # what the tools that measure share
        source += (ROOT / 'mmpaca/analysis/timing.py').read_text()
    return source


def test_commands_name_tools_and_flags_that_exist():
    targets = re.findall(r'^([\w-]+):', (ROOT / 'Makefile').read_text(), re.M)
    checked = 0
    for where, words in commands():
        if words[0] == 'make':
            unknown = [word for word in words[1:] if word not in targets and '=' not in word]
            assert not unknown, (where, unknown)
        tool = next((word for word in words[:2] if word.startswith('tools/')), None)
        if tool is None:
            continue
        assert (ROOT / tool).is_file(), (where, tool)
        flags = [word.partition('=')[0] for word in words if word.startswith('--')]
        unknown = [flag for flag in flags if f"'{flag}'" not in source_of(tool)]
        assert not unknown, (where, tool, unknown)
        configs = [word for word in words if re.fullmatch(r'configs/.+\.py', word)]
        assert all((ROOT / config).is_file() for config in configs), (where, configs)
        checked += 1
    assert checked > 20


# A relative base is for a file inside of configs/.
CONFIGS = [b for b in blocks('python') if re.search(r"^_base_ = (\[|'(?!\./))", b[1], re.M)]


@pytest.mark.parametrize('config', [c for _, c in CONFIGS], ids=[where for where, _ in CONFIGS])
def test_configs_build(config, tmp_path):
    """Every config in the docs is one; its neck gets the channels that the backbone has."""
    (tmp_path / 'config.py').write_text(config)
    cfg = Config.fromfile(tmp_path / 'config.py')
    arguments = {k: v for k, v in cfg.model.backbone.items() if k not in ('type', '_scope_')}
    with torch.device('meta'):
        backbone = PaCaViT(**arguments)
    channels = [backbone.embed_dims[i] for i in backbone.out_indices]
    assert cfg.model.neck.in_channels == channels


def test_other_python_is_python():
    for where, text in blocks('python'):
        compile(text, where, 'exec')


def test_promised_tests_exist():
    tests = '\n'.join(path.read_text() for path in (ROOT / 'tests').rglob('test_*.py'))
    for page in PAGES:
        names = re.findall(r'`(test_\w+)`', page.read_text())
        assert names or page.name != 'promises.md'
        for name in names:
            assert f'def {name}(' in tests, (page, name)


def test_citation_is_of_this_version(root):
    import mmpaca

    citation = yaml.safe_load((root / 'CITATION.cff').read_text())
    assert citation['version'] == mmpaca.__version__
    family_names = [author['family-names'] for author in citation['preferred-citation']['authors']]
    bibtex = (root / 'configs/paca_vit/README.md').read_text()
    authors = re.search(r'author *= {(.*)}', bibtex)[1].split(' and ')
    assert family_names == [author.partition(',')[0] for author in authors]
