#!/usr/bin/env bash
# Build mmcv's compiled operators against the installed torch, as a wheel; print the wheel's path.
#
#   tools/dev/build_mmcv.sh [VERSION]        default 2.1.0, the newest that mmdet 3.3.0 accepts
#
# PYTHON (default: python) names an interpreter with torch, setuptools < 82, wheel and ninja; FORCE_CUDA=1 builds
# for CUDA where no GPU is visible, MAX_JOBS (default: all cores) bounds the processes. A wheel built
# before for the same torch, Python and device is reused; they are kept in MMPACA_WHEELS.
set -euo pipefail
if [[ ${1:-} == -h || ${1:-} == --help ]]; then
    sed -n '2,/^set/{/^set/!s/^# \{0,1\}//p}' "$0"
    exit
fi
VERSION=${1:-2.1.0}
PYTHON=${PYTHON:-python}

# mmcv 2.1.0 asks for C++17, the headers of torch from 2.14 on for C++20 (open-mmlab/mmcv#3341).
read -r TORCH STANDARD DEVICE < <("$PYTHON" - << 'PY'
import os, torch
from packaging.version import Version
cuda = torch.cuda.is_available() or os.getenv('FORCE_CUDA') == '1'
standard = 'c++20' if Version(torch.__version__) >= Version('2.14') else 'c++17'
print(torch.__version__, standard, 'cuda' if cuda else 'cpu')
PY
)
CACHE=${MMPACA_WHEELS:-${XDG_CACHE_HOME:-$HOME/.cache}/mmpaca/wheels}/torch-$TORCH-$DEVICE
ABI=$("$PYTHON" -c 'import sys; print("cp%d%d" % sys.version_info[:2])')
shopt -s nullglob
built=("$CACHE"/mmcv-"$VERSION"-"$ABI"-*.whl)
if ((${#built[@]})); then
    echo "${built[0]}"
    exit
fi
echo "building mmcv $VERSION for torch $TORCH, $ABI, $DEVICE, $STANDARD" >&2

WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
"$PYTHON" -m pip download -q --no-deps --no-binary mmcv --no-build-isolation -d "$WORK" "mmcv==$VERSION" >&2
tar xzf "$WORK/mmcv-$VERSION.tar.gz" -C "$WORK"
sed -i "s/-std=c++1[47]/-std=$STANDARD/" "$WORK/mmcv-$VERSION/setup.py"

# Nine tenths of the time goes into reading torch's headers once per source file: a precompiled
# header has to be made with the very flags of the files, so the first call of the compiler makes it.
cat > "$WORK/torch.h" << 'CPP'
#include <torch/types.h>
CPP
cat > "$WORK/c++" << 'SH'
#!/usr/bin/env bash
set -euo pipefail
if [[ " $* " == *" -c "* ]]; then
    header=$(dirname "$0")/torch.h
    flags=() skip=
    for arg in "$@"; do
        case $skip$arg in
            -o | -MF) skip=next: ;;
            next:*) skip= ;;
            -c | -MMD | *.cpp) ;;
            *) flags+=("$arg") ;;
        esac
    done
    exec 9> "$header.lock"
    flock 9
    [[ -e $header.gch ]] || g++ "${flags[@]}" -g0 -x c++-header "$header" -o "$header.gch"
    exec 9>&-
    set -- -include "$header" -Winvalid-pch "$@" -g0
fi
exec g++ "$@"
SH
chmod +x "$WORK/c++"

mkdir -p "$CACHE"
CXX=$WORK/c++ MMCV_WITH_OPS=1 MAX_JOBS=${MAX_JOBS:-$(nproc)} "$PYTHON" -m pip wheel -q --no-deps --no-build-isolation \
    -w "$WORK/wheels" "$WORK/mmcv-$VERSION" >&2
mv "$WORK"/wheels/mmcv-*.whl "$CACHE"
echo "$CACHE"/mmcv-"$VERSION"-"$ABI"-*.whl
