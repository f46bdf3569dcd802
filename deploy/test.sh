#!/bin/bash
# test.sh PACKAGES…: go test with what CI demands: under CI=true a skipped test is a failed one.
set -uo pipefail
log=$(mktemp); trap 'rm -f "$log"' EXIT
go test -p 2 -timeout 30m -v "$@" >"$log" 2>&1; rc=$?
if [ $rc != 0 ]; then
  grep -E '^(\s*--- FAIL|FAIL|panic:|\S+\.go:[0-9]+)' "$log" | head -100
  echo "---- the end of the output of each failed package, and the whole of it in ${TEST_LOG:-test.log}" >&2
  cp "$log" "${TEST_LOG:-test.log}"
  awk '/^(=== RUN)/{buf=""} {buf=buf $0 "\n"} /^\s*--- FAIL/{printf "%s", buf; buf=""}' "$log" | tail -n 300
fi
grep -E '^(ok|FAIL|\?)' "$log" | grep -v 'no test files'
skips=$(grep -cE '^\s*--- SKIP' "$log")
if [ "$skips" != 0 ]; then
  echo "$skips skipped:"; grep -A2 -E '^\s*--- SKIP' "$log" | grep -vE '^(--|=== )' | head -60
  [ "${CI:-}" = true ] && { echo "under CI=true nothing may be skipped" >&2; rc=1; }
fi
exit $rc
