#!/usr/bin/env bash
# Builds Vault's Transit engine (scripts/vault_transit) from the Go module proxy into the path given; two minutes and
# a large download of Go modules. Only `make test-transit` needs it. Vault is under the Business Source License, which allows
# this use; nothing of it is part of Meshlog.
set -euo pipefail
target=$(realpath -m "$1")
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root/scripts/vault_transit"
GOTOOLCHAIN=local GOFLAGS=-mod=readonly CGO_ENABLED=0 "$root/.venv/bin/go" build -trimpath -ldflags '-s -w' -o "$target.new" .
mv "$target.new" "$target"
