#!/usr/bin/env bash
# Make the environments of the clients under test, each its own; what is there already is kept.
#
#   tests/clients/setup.sh [NAME...]      all of them, or those named
#
# Chromium is the system's: Debian's package `chromium`. With CHROMIUM=install it is installed.
set -euo pipefail

cd "$(dirname "$0")/../.."
home=.venv-clients
mkdir -p "$home"

# python NAME REQUIREMENT: a virtual environment with one requirement, made anew when that changes.
python() {
    local mark="$home/$1/.ready" wanted="$2"
    if [[ "$(cat "$mark" 2>/dev/null)" == "$wanted" ]]; then return; fi
    "${PYTHON:-python3}" -m venv "$home/$1"
    "$home/$1/bin/python" -m pip install --quiet --disable-pip-version-check "$wanted"
    echo "$wanted" > "$mark"
}

# node NAME REQUIREMENT: the same with npm; without npm it is left out.
node() {
    local mark="$home/$1/.ready" wanted="$2"
    if [[ "$(cat "$mark" 2>/dev/null)" == "$wanted" ]]; then return; fi
    if ! command -v npm >/dev/null; then echo "no npm: $1 is left out" >&2; return; fi
    mkdir -p "$home/$1"
    [[ -f "$home/$1/package.json" ]] || echo '{"private": true, "type": "module"}' > "$home/$1/package.json"
    npm install --prefix "$home/$1" --silent --no-audit --no-fund "$wanted"
    echo "$wanted" > "$mark"
}

make_one() {
    case "$1" in
        openai) python openai 'openai==2.54.*' ;;
        openai-node) node openai-node 'openai@6.49' ;;
        triton) python triton 'tritonclient[grpc]==2.73.*' ;;
        litellm) python litellm 'litellm==1.106.*' ;;
        langchain) python langchain 'langchain-openai==1.7.*' ;;
        chromium)
            if ! command -v chromium >/dev/null && [[ "${CHROMIUM:-}" == install ]]; then
                apt-get update -qq  # Lists of another day name files that are gone.
                DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends \
                    -o DPkg::Lock::Timeout=300 chromium
            fi
            ;;
        *) echo "there is no client $1" >&2; exit 2 ;;
    esac
}

if (($# == 0)); then set -- openai openai-node triton litellm langchain chromium; fi
for name in "$@"; do make_one "$name"; done
