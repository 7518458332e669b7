#!/usr/bin/env bash
# Stream a generation with `buf curl`, which asks the gateway for the schema.
#
#   npm install @bufbuild/buf
#   examples/buf_curl.sh 127.0.0.1:50051 "Once upon a time"
set -euo pipefail

target=${1:?usage: buf_curl.sh HOST:PORT PROMPT [MAX_TOKENS]}
prompt=${2:?usage: buf_curl.sh HOST:PORT PROMPT [MAX_TOKENS]}
max_tokens=${3:-64}

quoted=$(printf '%s' "$prompt" | python3 -c 'import json, sys; print(json.dumps(sys.stdin.read()))')
exec "${BUF:-buf}" curl --protocol grpc --http2-prior-knowledge \
    --data "{\"prompt\": $quoted, \"sampling\": {\"max_tokens\": $max_tokens}}" \
    "http://$target/millstream.v1.Inference/Generate"
