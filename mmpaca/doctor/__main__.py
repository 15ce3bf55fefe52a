"""``python -m mmpaca.doctor``, as ``mmpaca doctor``."""

import sys

from mmpaca.__main__ import main

if __name__ == '__main__':
    sys.exit(main(['doctor', *sys.argv[1:]]))
