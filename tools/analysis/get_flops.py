"""The same as `mmpaca flops`."""

import sys

from mmpaca.__main__ import main

if __name__ == '__main__':
    sys.exit(main(['flops', *sys.argv[1:]]))
