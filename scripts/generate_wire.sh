#!/bin/sh
# Regenerate the _pb2.py and .pyi of both wires from the .proto beside them (grpcio-tools, a dev dependency).
# Usage: scripts/generate_wire.sh [OUTPUT_DIRECTORY]     default: the repository itself
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
out=${1:-$root}
python=${PYTHON:-$root/.venv/bin/python}
cd "$root"
"$python" -m grpc_tools.protoc --proto_path=. --python_out="$out" --pyi_out="$out" xds/wire/discovery.proto projector/envoy/wire/endpoint.proto
