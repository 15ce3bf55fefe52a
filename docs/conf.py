"""Configuration of Sphinx: `make docs` builds docs/_build/html, a warning is an error."""

import os
import re
import sys
from pathlib import Path

from sphinx.application import Sphinx

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
sys.path.insert(0, str(ROOT))  # a checkout works without being installed

import mmpaca  # noqa: E402

REPOSITORY = 'https://github.com/mmpaca/mmpaca'

project = 'mmpaca'
author = 'mmpaca contributors'
version = release = mmpaca.__version__

extensions = [
    'myst_parser',
    'sphinx.ext.autodoc',
    'sphinx.ext.mathjax',
    'sphinx.ext.napoleon',
    'sphinx.ext.viewcode',
    'sphinx_copybutton',
    'sphinx_design',
]
exclude_patterns = ['_build']

myst_enable_extensions = ['colon_fence', 'dollarmath']
myst_heading_anchors = 3  # links to headings, by the names that GitHub gives them
copybutton_prompt_text = r'>>> |\.\.\. |\$ '
copybutton_prompt_is_regexp = True

autodoc_member_order = 'bysource'
autodoc_typehints = 'description'
autodoc_typehints_description_target = 'documented_params'

# Links into other packages' documentation need a network, so only Read the Docs makes them.
if os.environ.get('READTHEDOCS') == 'True':
    extensions.append('sphinx.ext.intersphinx')
    intersphinx_mapping = {
        'python': ('https://docs.python.org/3', None),
        'torch': ('https://docs.pytorch.org/docs/stable', None),
        'mmengine': ('https://mmengine.readthedocs.io/en/latest', None),
    }
# References inside mmpaca must resolve; those to other packages may stay plain text.
nitpick_ignore_regex = [
    (
        'py:.*',
        r'(argparse|collections|mmcv|mmdet|mmengine|mmpretrain|mmseg|np|numpy|os|pathlib|torch)\..*',
    ),
    ('py:.*', r'(Config|Path|Runner|Tensor)'),
]

html_theme = 'furo'
html_title = f'mmpaca {release}'
html_copy_source = False
html_show_copyright = False
html_static_path = ['_static']
html_css_files = ['custom.css']
html_theme_options = dict(
    source_repository=REPOSITORY,
    source_branch='main',
    source_directory='docs/',
    footer_icons=[dict(name='GitHub', url=REPOSITORY, html='GitHub', **{'class': ''})],
)

# Files of the repository that are pages here.
PAGES = {
    'CHANGELOG.md': '/changelog.md',
    'CONTRIBUTING.md': '/contributing.md',
    'configs/paca_vit/README.md': '/model_zoo.md',
    'configs/classification/README.md': '/model_zoo.md',
    'configs/segmentation/README.md': '/model_zoo.md',
}


def point_links(text: str, folder: Path) -> str:
    """Point relative links to pages of the site, or else to the repository.

    Args:
        text: Markdown.
        folder: absolute path of the folder that its links start from.
    """

    def moved(link: re.Match) -> str:
        target, hash_, anchor = link[1].partition('#')
        path = (folder / target).resolve()
        name = path.relative_to(ROOT).as_posix()
        if path.is_relative_to(DOCS):
            page = '/' + path.relative_to(DOCS).as_posix()
        else:
            page = PAGES.get(name, f'{REPOSITORY}/blob/main/{name}')
        return f']({page}{hash_}{anchor})'

    return re.sub(r'\]\((?!\w+:|#|/)([^)\s]+)\)', moved, text)


def read_page(app: Sphinx, docname: str, content: list[str]) -> None:
    """Point the links of a page."""
    content[0] = point_links(content[0], (DOCS / docname).parent)


def read_include(app: Sphinx, path: Path, parent: str, content: list[str]) -> None:
    """Point the links of an included file, whose path is relative to docs/."""
    content[0] = point_links(content[0], (DOCS / path).parent)


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect('source-read', read_page)
    app.connect('include-read', read_include)
