#!/usr/bin/env bash
# NOT YET RUN. vLLM on a GPU machine: AsyncLLM directly, vLLM's own server, Millstream over gRPC.
#
#   benchmarks/gpu/vllm.sh OUT.json [MODEL] [ARGS...]
#
# Needs an NVIDIA GPU with its driver, Python 3.11 or newer and a network for pip. MODEL is a
# directory or hub id; without one it is a Llama of 1.24 B parameters with random weights, which
# costs what a real one does. ARGS are those of benchmarks.vllm_overhead.
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
out=${1:?OUT.json, where the figures go}
out=$(cd "$(dirname "$out")" && pwd)/$(basename "$out")
shift
venv=${VENV:-$root/.venv-vllm-gpu}
cd "$root"

[ -x "$venv/bin/python" ] || python3 -m venv "$venv"
"$venv/bin/python" -m pip install --quiet --requirement deploy/vllm/requirements-gpu.txt \
    --editable .

if [ $# -gt 0 ] && [ "${1#-}" = "$1" ]; then
    model=$1
    shift
else
    model=$root/build/llama-1b
    [ -f "$model/model.safetensors" ] || "$venv/bin/python" -c "
from pathlib import Path
from benchmarks.gpu.checkpoint import make
make(Path('$model'), '1b', context=8192, device='cuda')"
fi

# Three engines share the card, one at work at a time.
exec "$venv/bin/python" -m benchmarks.vllm_overhead --out "$out" --model "$model" \
    --engine '{"dtype": "bfloat16", "enforce_eager": false, "gpu_memory_utilization": 0.28}' \
    --users 1 16 64 256 --prompt 128 --answer 128 "$@"
