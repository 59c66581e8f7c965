#!/usr/bin/env bash
# A suite in two halves side by side, one for each core: what starts clusters and clients, and all the rest.
# Prints both halves, one after the other; fails if either does. test.sh [MARKS], by default all but the long tests.
set -uo pipefail
cd "$(dirname "$0")/.."
marks=${1:-not long}
clusters=(tests/e2e tests/deploy tests/runbooks tests/cluster tests/clients tests/cli/test_local_cluster.py)
rest=$(mktemp)
trap 'kill "$other" 2>/dev/null; wait "$other" 2>/dev/null; rm -f "$rest"' EXIT
.venv/bin/python -m pytest -m "$marks" "${clusters[@]/#/--ignore=}" >"$rest" 2>&1 &
other=$!
.venv/bin/python -m pytest -m "$marks" "${clusters[@]}"
first=$?
wait "$other"
second=$?
cat "$rest"
[ "$first" = 0 ] && [ "$second" = 0 ]
