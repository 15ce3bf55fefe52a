#!/usr/bin/env bash
# Train on a slurm cluster; ahead of a time limit save, queue again and resume.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"
[ $# -ge 4 ] || usage "[GPUS=8 GPUS_PER_NODE=8 CPUS_PER_TASK=5 SRUN_ARGS=] $0 PARTITION JOB_NAME CONFIG WORK_DIR [flags of tools/train.py]"
TIME_LIMIT=138 # exit status after SIGUSR1
SRUN_ARGS="--signal=USR1@120 ${SRUN_ARGS:-}"
resume=()
[ "${SLURM_RESTART_COUNT:-0}" -eq 0 ] || resume=(--resume) # a batch job that was queued again
while true; do
    status=0
    on_slurm "$1" "$2" "$TOOLS/train.py" "$3" --work-dir="$4" "${@:5}" ${resume[@]+"${resume[@]}"} || status=$?
    [ "$status" -eq "$TIME_LIMIT" ] || exit "$status"
    resume=(--resume)
    if [ -n "${SLURM_JOB_ID:-}" ]; then
        echo "time limit: queueing job $SLURM_JOB_ID again"
        scontrol requeue "$SLURM_JOB_ID"
        exit "$status"
    fi
    echo "time limit: asking slurm for another allocation"
done
