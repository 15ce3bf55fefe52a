# Sourced by dist_*.sh and slurm_*.sh: which Python runs, and where the tools are.

TOOLS=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# A checkout works without being installed.
export PYTHONPATH="$TOOLS/..${PYTHONPATH:+:$PYTHONPATH}"
if [ -z "${PYTHON:-}" ]; then
    # An activated environment comes first, then the one that `make` created here.
    if [ -z "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ] && [ -x "$TOOLS/../.venv/bin/python" ]; then
        PYTHON=$TOOLS/../.venv/bin/python
    else
        PYTHON=python
    fi
fi

usage() {
    echo "usage: $1" >&2
    exit 2
}

# srun as mmdet's scripts call it: on_slurm PARTITION JOB_NAME SCRIPT [ARGS]
on_slurm() {
    local partition=$1 job_name=$2
    shift 2
    local per_node=${GPUS_PER_NODE:-8}
    # SRUN_ARGS is a list of flags, to be split.
    # shellcheck disable=SC2086
    srun -p "$partition" --job-name="$job_name" --gres="gpu:$per_node" \
        --ntasks="${GPUS:-8}" --ntasks-per-node="$per_node" \
        --cpus-per-task="${CPUS_PER_TASK:-5}" --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
        "$PYTHON" -u "$@" --launcher slurm
}
