#!/usr/bin/env bash
# Install mmpaca into fresh environments and use it there as a user does: from its wheel, with
# `pip install .` and as an editable installation, from a folder that has nothing to do with it.
#
#     tools/dev/check_install.sh [PYTHON...]     (default: python3.10 python3.11 python3.12 python3.13)
#
# An interpreter needs the network for pip, some minutes, and 6 GB in TMPDIR, freed before the next.
# Default interpreters that are not on PATH are named and skipped; a missing given one is an error.
set -euo pipefail

if [[ ${1:-} == -h || ${1:-} == --help ]]; then
    sed -n '2,/^set/s/^# \{0,1\}//p' "$0"
    exit
fi

ROOT=$(cd "$(dirname "$0")/../.." && pwd)
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
export PIP_DISABLE_PIP_VERSION_CHECK=1
unset PYTHON PYTHONPATH # a caller's must not be what is checked

fail() {
    echo "FAILED: $1" >&2
    exit 1
}

# A copy, so that building leaves nothing in the checkout; with what is not committed yet.
copy_tree() {
    git -C "$ROOT" ls-files -co --exclude-standard -z | tar -C "$ROOT" --null -T - -cf - | tar -C "$1" -xf -
}

installed_files() { # names and hashes, without what pip notes about the installation itself
    grep -v -e INSTALLER -e REQUESTED -e direct_url.json -e RECORD -e __pycache__ \
        "$WORK"/env/lib/python3*/site-packages/mmpaca-*.dist-info/RECORD | sort
}

version_of() { pip list --format=freeze | sed -n "s/^$1==//p"; }

check() { # KIND: all that a user does, from an unrelated folder
    rm -rf "$WORK/elsewhere"
    mkdir "$WORK/elsewhere"
    (cd "$WORK/elsewhere" && python -I "$WORK/source/tools/dev/check_installed.py" "$1" "$WORK/source")
}

check_interpreter() (
    set -e
    rm -rf "${WORK:?}"/*
    mkdir "$WORK/source"
    copy_tree "$WORK/source"
    "$1" -m venv "$WORK/env"
    source "$WORK/env/bin/activate"
    cd "$WORK"

    pip install -q build
    python -m build source > build.log 2>&1 || { cat build.log; fail 'python -m build'; }
    wheel=$(echo source/dist/*.whl)

    pip install -q "$wheel"
    mmpaca --help > /dev/null || fail 'mmpaca --help without mmcv'
    [[ -z $(version_of mmcv)$(version_of mmcv-lite) ]] || fail 'the base requirements install mmcv'
    said=$(python -c 'import mmpaca' 2>&1 | tail -n 1) || true
    echo "without mmcv: $said"
    [[ $said == *'run: pip install mmcv-lite'* ]] || fail 'no remedy for a missing mmcv'

    # openmim's opendatalab, which is for downloading data sets, wants setuptools 60.
    pip install -q "$wheel[all]" click colorama model-index pandas requests rich tabulate
    pip install -q --no-deps openmim
    for name in torch torchvision numpy mmengine mmcv-lite mmdet mmpretrain mmsegmentation setuptools openmim; do
        echo "$name $(version_of $name)"
    done | paste -sd ,
    failed=0
    check wheel || failed=1
    installed_files > wheel.txt

    lite=$(version_of mmcv-lite)
    pip uninstall -q -y mmpaca
    pip install -q ./source
    installed_files | diff wheel.txt - || fail 'pip install . differs from the wheel'
    echo 'ok      pip install .: file by file the same as the wheel'

    pip uninstall -q -y mmpaca
    pip install -q -e ./source
    [[ $(version_of mmcv-lite) == "$lite" && -z $(version_of mmcv) ]] || fail 'mmcv was changed'
    check editable || failed=1
    exit $failed
)

given=$(($# > 0))
[[ $given == 1 ]] || set -- python3.10 python3.11 python3.12 python3.13
status=0
checked=0
summary=()
for interpreter; do
    if ! command -v "$interpreter" > /dev/null; then
        summary+=("$interpreter: not found, not checked")
        status=$((status | given))
        continue
    fi
    echo "== $("$interpreter" --version), $interpreter"
    start=$SECONDS
    # Not in a condition: there bash ignores errors inside.
    set +e
    check_interpreter "$interpreter"
    result=$?
    set -e
    checked=$((checked + 1))
    [[ $result == 0 ]] && verdict=passed || verdict=FAILED status=1
    summary+=("$interpreter: $verdict in $((SECONDS - start)) s")
done
printf '%s\n' "${summary[@]}"
[[ $checked -gt 0 ]] || status=1
exit $status
