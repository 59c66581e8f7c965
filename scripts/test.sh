#!/usr/bin/env bash
# The default suite in two halves side by side, one for each core: what starts whole clusters, and all the rest.
# Prints both halves, one after the other; fails if either does.
set -uo pipefail
cd "$(dirname "$0")/.."
clusters=(tests/e2e tests/deploy tests/cli/test_local_cluster.py)
rest=$(mktemp)
trap 'kill "$other" 2>/dev/null; wait "$other" 2>/dev/null; rm -f "$rest"' EXIT
.venv/bin/python -m pytest "${clusters[@]/#/--ignore=}" >"$rest" 2>&1 &
other=$!
.venv/bin/python -m pytest "${clusters[@]}"
first=$?
wait "$other"
second=$?
cat "$rest"
[ "$first" = 0 ] && [ "$second" = 0 ]
