#!/usr/bin/env bash
# Train on several GPUs, or without CUDA on several CPU processes.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"
[ $# -ge 2 ] || usage "[NNODES=1 NODE_RANK=0 MASTER_ADDR=127.0.0.1 PORT=free] $0 CONFIG GPUS [flags of tools/train.py]"
exec "$PYTHON" -m mmpaca train "$1" --nproc "$2" "${@:3}"
