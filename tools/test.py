"""The same as `mmpaca test`."""

import sys

from mmpaca.__main__ import main

if __name__ == '__main__':
    sys.exit(main(['test', *sys.argv[1:]]))
