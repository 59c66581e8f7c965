#!/usr/bin/env bash
# A suite in two halves side by side, one for each core: what starts clusters and clients, and all the rest.
# Prints both halves, one after the other. Tests that failed run once more when both have ended and the machine is
# quiet, one after the other; that run decides. A test that fails twice fails the suite, and so do more failures than
# MOST_AGAIN and whatever ended a half before its tests were through.  test.sh [MARKS], by default all but the long tests.
set -uo pipefail
cd "$(dirname "$0")/.."
marks=${1:-not long}
MOST_AGAIN=15
clusters=(tests/e2e tests/deploy tests/runbooks tests/cluster tests/clients tests/cli/test_local_cluster.py)
scratch=$(mktemp -d)
other=
trap '[ -z "$other" ] || { kill "$other" 2>/dev/null; wait "$other" 2>/dev/null; }; rm -rf "$scratch"' EXIT

run() { # run NAME ARGUMENT...: become a pytest with a cache of its own
    local name=$1
    shift
    exec .venv/bin/python -m pytest -o cache_dir="$scratch/$name" -m "$marks" "$@"
}

failed_in() { # failed_in NAME...: the ids of the tests that failed, ended by NUL
    local name
    for name in "$@"; do
        .venv/bin/python - "$scratch/$name/v/cache/lastfailed" <<'PY'
import json, pathlib, sys
path = pathlib.Path(sys.argv[1])
sys.stdout.write("".join(f"{test}\0" for test in (json.loads(path.read_text()) if path.exists() else ())))
PY
    done
}

# Each half has ports of its own, so that neither loses one to the other between look and use.
MESHLOG_PORTS=21000-31999 run rest "${clusters[@]/#/--ignore=}" >"$scratch/rest.out" 2>&1 &
other=$!
MESHLOG_PORTS=10000-20999 run clusters "${clusters[@]}" 2>&1 | tee "$scratch/clusters.out"
first=${PIPESTATUS[0]}
wait "$other"
second=$?
other=
cat "$scratch/rest.out"
[ "$first" = 0 ] && [ "$second" = 0 ] && exit 0

for status in "$first" "$second"; do
    [ "$status" -le 1 ] || { echo "a half of the suite ended with $status, before its tests were through"; exit 1; }
done
[ "$first" = 0 ] || failed_in clusters >"$scratch/failed"
[ "$second" = 0 ] || failed_in rest >>"$scratch/failed"
mapfile -d '' -t failed <"$scratch/failed"
for half in "clusters $first" "rest $second"; do
    [ "${half#* }" = 0 ] || [ -n "$(failed_in "${half% *}" | tr '\0' '\n')" ] || {
        echo "half '${half% *}' failed, and not by a test"
        exit 1
    }
done
if [ "${#failed[@]}" -gt "$MOST_AGAIN" ]; then
    echo "${#failed[@]} tests failed: more than the $MOST_AGAIN that are run again"
    exit 1
fi

printf '\n%s tests failed; each once more, alone:\n' "${#failed[@]}"
printf '  %s\n' "${failed[@]}"
run again "${failed[@]}" 2>&1 | tee "$scratch/again.out"
again=${PIPESTATUS[0]}
mapfile -d '' -t twice < <(failed_in again)
for test in "${failed[@]}"; do
    verdict="failed beside others, passed alone"
    [ "$again" -le 1 ] || verdict="failed beside others, not run to its end alone"
    for other_test in ${twice[@]+"${twice[@]}"}; do
        [ "$test" != "$other_test" ] || verdict="failed twice"
    done
    echo "$verdict: $test"
done
for name in clusters rest again; do
    echo "$name: $(tail -n 1 "$scratch/$name.out")"
done
tail -n 1 "$scratch/again.out"
exit "$again"
