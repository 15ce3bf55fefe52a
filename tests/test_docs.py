"""What the docs say exists: files, headings, commands and their flags, configs, tests."""

import json
import re
import runpy
import shlex
from functools import cache
from pathlib import Path

import pytest
import torch
import yaml
from markdown_it import MarkdownIt
from markdown_it.token import Token
from mmengine.config import Config

from mmpaca.__main__ import build_parser
from mmpaca.apis.configs import find_config
from mmpaca.models import PaCaViT

ROOT = Path(__file__).resolve().parent.parent
PAGES = [
    *(ROOT / name for name in ('README.md', 'CONTRIBUTING.md', 'CHANGELOG.md')),
    *sorted((ROOT / 'configs').rglob('*.md')),
    *sorted(p for p in (ROOT / 'docs').rglob('*.md') if '_build' not in p.parts),
]


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


def test_make_targets_and_scripts_exist():
    targets = re.findall(r'^([\w-]+):', (ROOT / 'Makefile').read_text(), re.M)
    for where, words in commands():
        if words[0] == 'make':
            unknown = [word for word in words[1:] if word not in targets and '=' not in word]
            assert not unknown, (where, unknown)
        files = [
            word for word in words if re.match(r'(tools|configs|demo)/.+\.(py|sh|ipynb)$', word)
        ]
        missing = [file for file in files if not (ROOT / file).is_file()]
        assert not missing, (where, missing)


# What stands in for a value in a command line of the docs, e.g. CONFIG or FILE.
PLACEHOLDER = r'[A-Z_]+(\.\.\.)?|INPUTS\.\.\.'


def mmpaca_commands() -> list[tuple[str, list[str]]]:
    """Command lines of `mmpaca`, without pipes and redirections."""
    found = []
    for where, words in commands():
        end = next((i for i, word in enumerate(words) if re.match(r'[|<]|2?>', word)), len(words))
        if words[0] == 'mmpaca':
            found.append((where, words[1:end]))
    return found


def test_commands_parse():
    """Subcommands and their options exist, and every named config is found."""
    parser = build_parser()
    found = mmpaca_commands()
    assert len({words[0] for _, words in found}) > 8
    for where, words in found:
        words = [re.sub(r'^N$', '1', word) for word in words if word != '[WORD...]']
        try:
            args, unknown = parser.parse_known_args(words)
        except SystemExit:
            pytest.fail(f'{where}: mmpaca {shlex.join(words)}')
        assert not unknown, (where, unknown)
        config = getattr(args, 'config', None)
        if (
            config
            and not re.fullmatch(PLACEHOLDER, config)
            and not re.search(r'(parts|photos)\.py$', config)
        ):
            find_config(config)


def test_notebook_is_clean_and_its_commands_parse():
    notebook = json.loads((ROOT / 'demo/tutorial.ipynb').read_text())
    assert not any(cell.get('outputs') for cell in notebook['cells'])
    parser = build_parser()
    sources = [''.join(cell['source']) for cell in notebook['cells'] if cell['cell_type'] == 'code']
    lines = [
        line
        for source in sources
        if source.startswith('%%bash')
        for line in source.replace('\\\n', ' ').splitlines()
        if line.startswith('mmpaca ')
    ]
    assert len(lines) == 3
    for line in lines:
        line = line.split(' 2>&1')[0].replace('$MINUTES', '6')
        words = shlex.split(re.sub(r'\$\(.*?\)', 'FILE', line))
        parser.parse_args(words[1:])


# A relative base is for a file inside of configs/.
CONFIGS = [b for b in blocks('python') if re.search(r"^_base_ = (\[|'(?!\./))", b[1], re.M)]


@pytest.mark.parametrize('config', [c for _, c in CONFIGS], ids=[where for where, _ in CONFIGS])
def test_configs_build(config, tmp_path):
    """Every config in the docs is one; its neck or head gets the channels that the backbone has."""
    if 'segmentation/' in config:
        pytest.importorskip('mmseg')
    (tmp_path / 'config.py').write_text(config)
    cfg = Config.fromfile(tmp_path / 'config.py')
    arguments = {k: v for k, v in cfg.model.backbone.items() if k not in ('type', '_scope_')}
    with torch.device('meta'):
        backbone = PaCaViT(**arguments)
    channels = [backbone.embed_dims[i] for i in backbone.out_indices]
    assert (cfg.model.get('neck') or cfg.model.decode_head).in_channels == channels


def test_other_python_is_python():
    for where, text in blocks('python'):
        compile(text, where, 'exec')


def test_readme_is_short_and_readable_anywhere():
    """PyPI and other sites show README without the repository beside it."""
    page = ROOT / 'README.md'
    assert len(page.read_text().split()) <= 900
    links = [t.attrs.get('href') or t.attrs.get('src') for t in tokens(page)]
    assert all(link.startswith('https://') for link in links if link)


def test_addresses_of_this_repository_exist():
    """Absolute links to its own files and pages."""
    for page in PAGES:
        text = page.read_text()
        for branch in re.findall(
            r'github(?:usercontent)?\.com/mmpaca/mmpaca/(?:blob/)?main/([^)#\s]+)', text
        ):
            assert (ROOT / branch).exists() or branch == 'SECURITY.md', (page, branch)
        for name in re.findall(r'mmpaca\.readthedocs\.io/en/latest/([\w/]+)\.html', text):
            assert (ROOT / f'docs/{name}.md').is_file(), (page, name)


def test_citation_is_of_this_version(root):
    import mmpaca

    citation = yaml.safe_load((root / 'CITATION.cff').read_text())
    assert citation['version'] == mmpaca.__version__
    family_names = [author['family-names'] for author in citation['preferred-citation']['authors']]
    bibtex = (root / 'configs/paca_vit/README.md').read_text()
    authors = re.search(r'author *= {(.*)}', bibtex)[1].split(' and ')
    assert family_names == [author.partition(',')[0] for author in authors]


def test_the_table_of_stock_detectors_counts_right():
    script = runpy.run_path(str(ROOT / 'tools/dev/check_stock_detectors.py'))
    rows = script['read_rows'](script['PAGE'])
    good = sum(row.endswith('| yes | yes |') for row in rows.values())
    assert len(rows) >= 5 and f'\n{good} of {len(rows)} do both' in script['PAGE'].read_text()
    assert all((script['CONFIGS'] / family / 'metafile.yml').is_file() for family in rows)
    for family, row in rows.items():
        name = row.split(' | ')[1]
        assert (script['CONFIGS'] / family / f'{name}.py').is_file(), row
