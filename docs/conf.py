"""Configuration of Sphinx: `make docs` builds docs/_build/html, a warning is an error."""

import os
import re
import sys
from pathlib import Path

from sphinx.application import Sphinx

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent))  # a checkout works without being installed

import mmpaca  # noqa: E402

project = 'mmpaca'
author = 'mmpaca contributors'
version = release = mmpaca.__version__

extensions = [
    'myst_parser',
    'sphinx.ext.autodoc',
    'sphinx.ext.napoleon',
    'sphinx.ext.viewcode',
]
exclude_patterns = ['_build']

myst_heading_anchors = 3  # links to headings, by the names that GitHub gives them

autodoc_member_order = 'bysource'
autodoc_typehints = 'description'
autodoc_typehints_description_target = 'documented_params'

# Every reference must resolve, but for those to other packages, whose inventories are not here.
nitpick_ignore_regex = [
    (
        'py:.*',
        r'(argparse|collections|mmcv|mmdet|mmengine|mmpretrain|np|numpy|os|pathlib|torch)\..*',
    ),
    ('py:.*', r'(Config|Path|Runner|Tensor)'),
]

html_theme = 'furo'
html_title = f'mmpaca {release}'
html_copy_source = False
html_show_copyright = False

# Files of the repository that the site includes, and the page that has them.
PAGES = {
    '../README.md': 'index.md',
    '../CHANGELOG.md': 'changelog.md',
    '../CONTRIBUTING.md': 'contributing.md',
    '../configs/paca_vit/README.md': 'model_zoo.md',
    '../configs/classification/README.md': 'model_zoo.md',
}


def move_links(app: Sphinx, path: Path, parent: str, content: list[str]) -> None:
    """Point the relative links of an included file, seen from docs/, to the same places.

    Args:
        app: Sphinx.
        path: of the file, relative to docs/.
        parent: the page that includes it.
        content: one string, replaced.
    """

    def moved(link: re.Match) -> str:
        target, hash_, anchor = link[1].partition('#')
        target = os.path.relpath(DOCS / path.parent / target, DOCS)
        return f']({PAGES.get(target, target)}{hash_}{anchor})'

    content[0] = re.sub(r'\]\((?!\w+:|#)([^)\s]+)\)', moved, content[0])


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect('include-read', move_links)
