"""The same as `mmpaca convert --task backbone`."""

import sys

from mmpaca.__main__ import main

if __name__ == '__main__':
    sys.exit(main(['convert', '--task', 'backbone', *sys.argv[1:]]))
