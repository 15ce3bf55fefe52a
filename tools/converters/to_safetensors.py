"""The same as `mmpaca convert`."""

import sys

from mmpaca.__main__ import main

if __name__ == '__main__':
    sys.exit(main(['convert', *sys.argv[1:]]))
