#!/usr/bin/env bash
# The torch engine on a GPU machine that may have no network, in two steps.
#
#   benchmarks/gpu/torch.sh fetch DIR [PYTHON_VERSION]   here: download the wheels into DIR (17 MB)
#   benchmarks/gpu/torch.sh run DIR OUT.json [ARGS...]   there: install them aside and measure
#
# The machine's own python3 must have torch, safetensors and transformers. ARGS are those of
# benchmarks.gpu.torch_llama1b.
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)

fetch() {
    python3 -m pip download --quiet --no-deps --only-binary=:all: --implementation cp \
        --python-version "${2:-3.12}" --platform manylinux_2_28_x86_64 \
        --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \
        --dest "$1" --requirement "$root/benchmarks/gpu/wheels.txt"
}

run() {
    local wheels=$1 out=$2 site
    shift 2
    site=$(mktemp -d)
    python3 -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir \
        --target "$site" "$wheels"/*.whl
    export PATH="$site/bin:$PATH" PYTHONPATH="$site:$root" PYTHONUNBUFFERED=1
    cd "$root"
    python3 -m benchmarks.gpu.torch_llama1b --out "$out" "$@"
}

command=${1:-}
shift || true
case $command in
    fetch | run) "$command" "$@" ;;
    *) sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
