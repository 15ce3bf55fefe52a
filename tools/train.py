"""The same as `mmpaca train`."""

import sys

from mmpaca.__main__ import main

if __name__ == '__main__':
    sys.exit(main(['train', *sys.argv[1:]]))
