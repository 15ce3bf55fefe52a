#!/usr/bin/env bash
# Run the whole test suite in fresh environments; print a row of the compatibility table for each.
#
#   tools/dev/matrix.sh [reference|newest|compiled|onedl ...]        default: all four
#
#   reference  the versions in requirements/constraints.txt
#   newest     the same with the newest torch and torchvision there are
#   compiled   the same with compiled mmcv, by tools/dev/build_mmcv.sh, instead of mmcv-lite
#   onedl      the onedl forks of mmengine, mmcv, mmdet, mmpretrain and mmseg
#
# PYTHON (default: python3; 3.11 or later) makes the environments, in temporary folders that are removed; logs and
# rows stay in OUT (default: work_dirs/matrix).
set -euo pipefail
if [[ ${1:-} == -h || ${1:-} == --help ]]; then
    sed -n '2,/^set/{/^set/!s/^# \{0,1\}//p}' "$0"
    exit
fi
cd "$(dirname "$0")/../.."
OUT=$(realpath -m "${OUT:-work_dirs/matrix}")
mkdir -p "$OUT"

# The requirements of mmpaca and of its extras, but for compiled mmcv.
list_requirements() {
    python - << 'PY'
import tomllib
with open('pyproject.toml', 'rb') as file:
    project = tomllib.load(file)['project']
extras = project['optional-dependencies']
names = project['dependencies'] + [n for extra in extras if extra != 'mmcv' for n in extras[extra]]
print(*(name for name in names if not name.startswith('mmpaca[')), sep='\n')
PY
}

# Install what the tests need into the active interpreter.
install_environment() {
    local left_out='^$' free='^$' extra=()
    case $1 in
        reference) ;;
        newest) free='^torch(vision)?\b' ;;
        compiled) left_out='^mmcv-lite\b' ;;
        onedl)
            left_out='^mm'
            extra=(onedl-mmengine onedl-mmcv onedl-mmdetection onedl-mmpretrain onedl-mmsegmentation)
            ;;
        *)
            echo "no environment '$1': reference, newest, compiled or onedl"
            return 2
            ;;
    esac
    python -m pip install -q 'setuptools>=77' wheel -c requirements/constraints.txt
    python -m pip install -q "${extra[@]}" -r <(list_requirements | grep -vE "$left_out") \
        -c <(grep -vE "$left_out|$free" requirements/constraints.txt)
    if [[ $1 == compiled ]]; then
        python -m pip install -q ninja
        local wheel
        wheel=$(PYTHON=python tools/dev/build_mmcv.sh)
        python -m pip install -q "$wheel"
    fi
    python -m pip install -q --no-build-isolation --no-deps -e .
}

print_versions() {
    python - << 'PY'
import sys
from importlib.metadata import packages_distributions, version
distributions = packages_distributions()
names = [distributions[n][0] for n in ('torch', 'torchvision', 'mmengine', 'mmcv', 'mmdet', 'mmpretrain', 'mmseg')]
print('versions: Python %d.%d,' % sys.version_info[:2], ', '.join(f'{n} {version(n)}' for n in names))
PY
}

run_tests() {
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
    "${PYTHON:-python3}" -m venv "$folder"
    source "$folder/bin/activate"
    install_environment "$1"
    print_versions
    OMP_NUM_THREADS=1 python -m pytest -n auto --dist loadfile
}

(($#)) || set -- reference newest compiled onedl
failed=0
for environment; do
    log=$OUT/$environment.log
    echo "$environment: see $log" >&2
    # A process of its own, for bash ignores `set -e` in what a condition tests.
    export -f install_environment list_requirements print_versions run_tests
    bash -euo pipefail -c "run_tests $environment" > "$log" 2>&1 || failed=1
    # pytest's last line, or what kept it from running
    echo "| $environment | $(sed -n 's/^versions: //p' "$log") | $(tail -1 "$log") | $(date +%F) |" |
        tee "$OUT/$environment.md"
done
exit $failed
