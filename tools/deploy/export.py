"""The same as `mmpaca export`."""

import sys

from mmpaca.__main__ import main

if __name__ == '__main__':
    sys.exit(main(['export', *sys.argv[1:]]))
