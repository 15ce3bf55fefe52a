"""Prove mmpaca on a GPU: ``mmpaca doctor --gpu`` from a checkout, with the same options.

At most 10 minutes on one machine, without network or data. Writes gpu_check.json and gpu_check.md.
"""

import sys

from mmpaca.__main__ import main

if __name__ == '__main__':
    sys.exit(main(['doctor', '--gpu', *sys.argv[1:]]))
