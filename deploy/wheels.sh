#!/usr/bin/env bash
# Put the CPU build of torch into deploy/wheels, from where the worker's image takes it, if that is
# the build that an interpreter here has; else the image takes what the package index has.
#
#   deploy/wheels.sh .venv/bin/python
#
# TORCH_INDEX   the package index that has it, as for `make setup`
set -euo pipefail

python=${1:-python3}
folder=$(cd "$(dirname "$0")" && pwd)/wheels
# Of the image: python:3.11.
target=(--only-binary :all: --python-version 3.11 --implementation cp)

version=$("$python" -c 'from importlib.metadata import version; print(version("torch"))')
case $version in
    *+cpu) ;;
    *) echo "torch $version is no build of its own for CPUs: the image takes the index's" >&2; exit 0 ;;
esac
if compgen -G "$folder/torch-$version-*.whl" > /dev/null; then exit 0; fi

rm -f "$folder"/torch-*.whl
"$python" -m pip download --quiet --disable-pip-version-check --no-deps "${target[@]}" \
    ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} --dest "$folder" "torch==$version"
