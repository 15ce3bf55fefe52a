"""Print the section of CHANGELOG.md that belongs to a tag; fail where tag and files disagree.

Example: python tools/dev/release_notes.py v0.1.0
"""

import argparse
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def release_notes(tag: str, changelog: str, version: str) -> str:
    """Return the section of a version.

    Args:
        tag: name of the tag, e.g. ``v0.1.0``.
        changelog: text of the changelog, with a heading ``## 0.1.0 (2026-11-27)`` per version.
        version: version of the package.

    Raises:
        ValueError: if the tag is not the version's, or the changelog has no dated section for it.
    """
    if tag != f'v{version}':
        raise ValueError(f'tag {tag} does not match version {version} in mmpaca/version.py')
    heading = rf'^## {re.escape(version)} \(\d{{4}}-\d\d-\d\d\)\n'
    found = re.search(rf'{heading}(.+?)(?=^## |\Z)', changelog, re.DOTALL | re.MULTILINE)
    if not found:
        raise ValueError(f'CHANGELOG.md has no section "## {version} (YYYY-MM-DD)"')
    return found[1].strip()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('tag', help='tag of the release, e.g. v0.1.0')
    args = parser.parse_args()
    source = (ROOT / 'mmpaca/version.py').read_text()
    version = re.search(r"__version__ = '(.+)'", source)[1]
    try:
        print(release_notes(args.tag, (ROOT / 'CHANGELOG.md').read_text(), version))
    except ValueError as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
