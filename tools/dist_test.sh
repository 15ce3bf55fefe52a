#!/usr/bin/env bash
# Test on several GPUs, or without CUDA on several CPU processes.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"
[ $# -ge 3 ] || usage "[NNODES=1 NODE_RANK=0 MASTER_ADDR=127.0.0.1 PORT=free] $0 CONFIG CHECKPOINT GPUS [flags of tools/test.py]"
exec "$PYTHON" -m mmpaca test "$1" "$2" --nproc "$3" "${@:4}"
