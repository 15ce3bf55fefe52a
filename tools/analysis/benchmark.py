"""The same as `mmpaca benchmark`."""

import sys

from mmpaca.__main__ import main

if __name__ == '__main__':
    sys.exit(main(['benchmark', *sys.argv[1:]]))
