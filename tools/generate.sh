#!/usr/bin/env bash
# Generate the Python stubs of the protos under the folder given.
set -euo pipefail

cd "$(dirname "$0")/.."
out=${1:?usage: tools/generate.sh OUT}
mkdir -p "$out"
PATH="$PWD/.venv/bin:$PATH" .venv/bin/python -m grpc_tools.protoc \
    --proto_path=. \
    --python_out="$out" --pyi_out="$out" --grpclib_python_out="$out" \
    millstream/v1/types.proto millstream/v1/inference.proto gateway/kserve/inference.proto
rm "$out/millstream/v1/types_grpc.py"  # It has no service, so the plugin writes imports only.
