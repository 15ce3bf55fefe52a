#!/bin/sh
# tools/dev/gpu_bundle.sh [FOLDER]
#
# Collect what `mmpaca doctor --gpu` needs on a machine without a network that
# has torch and torchvision: the wheel of this checkout and the pure-Python or small packages beside
# torch, about 160 MB, for the version of $PYTHON, whose environment gives the versions. On that machine:
#
#   python -m pip install --no-index --find-links FOLDER 'mmpaca[lite,mmpretrain]'
#   mmpaca doctor --gpu
#
# Install into the environment itself (not by PYTHONPATH), so that spawned processes see it, too.
set -eu
if [ "${1:-}" = -h ] || [ "${1:-}" = --help ]; then
    sed -n '2,/^set/s/^# \{0,1\}//p' "$0"
    exit
fi
cd "$(dirname "$0")/../.."
folder=${1:-work_dirs/gpu_bundle}
python=${PYTHON:-python3}
mkdir -p "$folder"
"$python" -m pip wheel -q --no-deps --no-build-isolation -w "$folder" .
# The versions of this environment, without torch and its CUDA libraries, which the machine has.
"$python" - > "$folder/requirements.txt" << 'CODE'
import re
from importlib.metadata import PackageNotFoundError, distribution

from packaging.requirements import Requirement


def collect(name, extras, found):
    name = re.sub('[-_.]+', '-', name).lower()
    if (name, extras) in found or name in ('torch', 'torchvision'):
        return
    try:
        package = distribution(name)
    except PackageNotFoundError:  # for another platform
        return
    found[name, extras] = package.version
    for requirement in map(Requirement, package.requires or ()):
        if any(
            requirement.marker is None or requirement.marker.evaluate({'extra': extra})
            for extra in extras or ('',)
        ):
            collect(requirement.name, frozenset(requirement.extras), found)


found = {}
collect('mmpaca', frozenset({'lite', 'mmpretrain'}), found)
pins = {f'{name}=={version}' for (name, _), version in found.items() if name != 'mmpaca'}
print(*sorted(pins), sep='\n')
CODE
"$python" -m pip wheel -q --no-deps -w "$folder" -r "$folder/requirements.txt"
du -sh "$folder"
