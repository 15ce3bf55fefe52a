"""The same as `mmpaca check-data`."""

import sys

from mmpaca.__main__ import main

if __name__ == '__main__':
    sys.exit(main(['check-data', *sys.argv[1:]]))
