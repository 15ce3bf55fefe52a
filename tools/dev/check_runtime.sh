#!/usr/bin/env bash
# Install mmpaca-runtime from its wheel into a fresh environment, without PyTorch and mmpaca, and run it
# on a model of `mmpaca export`.
#
#     tools/dev/check_runtime.sh MODEL.onnx INPUT... (default interpreter: $PYTHON or python3)
#
# It needs the network for pip and a minute.
set -euo pipefail

if [[ $# -lt 2 || $1 == -h || $1 == --help ]]; then
    sed -n '2,/^set/s/^# \{0,1\}//p' "$0"
    exit $(($# < 1))
fi

ROOT=$(cd "$(dirname "$0")/../.." && pwd)
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
export PIP_DISABLE_PIP_VERSION_CHECK=1
unset PYTHONPATH

model=$(realpath "$1")
shift
inputs=()
for input; do inputs+=("$(realpath "$input")"); done

cp -r "$ROOT/runtime" "$WORK/source"
"${PYTHON:-python3}" -m venv "$WORK/env"
source "$WORK/env/bin/activate"
cd "$WORK"
pip wheel -q --no-deps -w dist ./source
pip install -q dist/*.whl
pip list --format=freeze | paste -sd ' '

python -I - << 'CODE'
import importlib.util, resource, subprocess, sys

for name in ('torch', 'mmengine', 'mmcv', 'mmdet', 'mmpaca', 'cv2', 'onnx'):
    assert importlib.util.find_spec(name) is None, name


def seconds(code):  # of the processor: other programs may run
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, '-I', '-c', code], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


times = sorted(seconds('import mmpaca_runtime') - seconds('pass') for _ in range(5))
print(f'import mmpaca_runtime: {times[2]:.2f} s')
CODE
mmpaca-predict "$model" "${inputs[@]}" --out-dir "$WORK/out" --batch-size 2
echo "$(ls "$WORK/out/vis" | wc -l) pictures"

pip install -q 'av>=12'
python -I - "$WORK/video.mp4" << 'CODE'
import sys

import av
import numpy as np

with av.open(sys.argv[1], 'w') as file:
    stream = file.add_stream('mpeg4', rate=5)
    stream.width, stream.height, stream.pix_fmt = 96, 64, 'yuv420p'
    for k in range(4):
        image = np.full((64, 96, 3), 60 * k, np.uint8)
        file.mux(stream.encode(av.VideoFrame.from_ndarray(image, format='rgb24')))
    file.mux(stream.encode())
CODE
mmpaca-predict "$model" "$WORK/video.mp4" --out-dir "$WORK/video"
[[ $(ls "$WORK/video/vis" | wc -l) == 4 ]] || { echo 'FAILED: 4 frames' >&2; exit 1; }
echo passed
