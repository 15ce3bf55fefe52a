#!/bin/sh
# gpu_bundle.sh [FOLDER]: collect what `mmpaca doctor --gpu` needs on a machine without a network that
# has torch and torchvision: the wheel of this checkout and the pure-Python or small packages beside
# torch. Then, on that machine:
#
#   python -m pip install --no-index --find-links FOLDER 'mmpaca[all]'
#   mmpaca doctor --gpu
#
# Install into the environment itself (not by PYTHONPATH), so that spawned processes see it, too.
set -eu
cd "$(dirname "$0")/../.."
folder=${1:-work_dirs/gpu_bundle}
python=${PYTHON:-python3}
mkdir -p "$folder"
"$python" -m pip wheel -q --no-deps --no-build-isolation -w "$folder" .
# Dependencies, except torch with its CUDA libraries, which the machine has.
"$python" -m pip freeze --exclude-editable |
    grep -viE '^(torch|torchvision|triton|nvidia-|cuda-|mmpaca)' |
    grep -E '==' >"$folder/requirements.txt"
"$python" -m pip wheel -q --no-deps -w "$folder" -r "$folder/requirements.txt"
du -sh "$folder"
