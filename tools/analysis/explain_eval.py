"""The same as `mmpaca explain-eval`."""

import sys

from mmpaca.__main__ import main

if __name__ == '__main__':
    sys.exit(main(['explain-eval', *sys.argv[1:]]))
