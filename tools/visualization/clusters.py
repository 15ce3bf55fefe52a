"""The same as `mmpaca clusters`."""

import sys

from mmpaca.__main__ import main

if __name__ == '__main__':
    sys.exit(main(['clusters', *sys.argv[1:]]))
