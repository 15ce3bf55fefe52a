"""Draw the clusters of a detector or classifier. The same as ``mmpaca clusters``.

python tools/visualization/clusters.py CONFIG CHECKPOINT IMAGES... --out-dir clusters
"""

import sys

from mmpaca.__main__ import main

if __name__ == '__main__':
    sys.exit(main(['clusters', *sys.argv[1:]]))
