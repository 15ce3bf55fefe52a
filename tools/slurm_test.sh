#!/usr/bin/env bash
# Test on a slurm cluster.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"
[ $# -ge 4 ] || usage "[GPUS=8 GPUS_PER_NODE=8 CPUS_PER_TASK=5 SRUN_ARGS=] $0 PARTITION JOB_NAME CONFIG CHECKPOINT [flags of tools/test.py]"
on_slurm "$1" "$2" "$TOOLS/test.py" "$3" "$4" "${@:5}"
