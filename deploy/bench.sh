#!/bin/bash
# bench.sh [NAME]: the benchmarks of docs/benchmarks.md, all or one (S1, S2, S3, S4, S7, S12, S13), with the machine's load before
# each. S2, S3, S12 and S13 bring a whole site up, which needs root.
# Quote CPU per operation and ratios within one run: machines are noisy.
set -euo pipefail
cd "$(dirname "$0")/.."

run() { # NAME PACKAGE PATTERN [MORE…]
  local name=$1 package=$2 pattern=$3; shift 3
  echo "== $name: $package $pattern (load $(cut -d' ' -f1-3 /proc/loadavg), $(nproc) cores)"
  go test -p 2 -run '^$' -bench "$pattern" -benchmem "$@" "$package" | grep -vE '^(goos|goarch|PASS|ok)'
}

known=(S1 S2 S3 S4 S7 S12 S13)
wanted=("${@:-${known[@]}}")
for name in "${wanted[@]}"; do
  case $name in
  S1) run S1 ./pkg/placement '^BenchmarkChoose$' ;;
  S2)
    run S2 ./deploy/e2e '^BenchmarkS2$' -benchtime 1x -timeout 30m
    run S2 ./zoneagent/internal/worker '^BenchmarkPlacing$' -benchtime 1x
    run S2 ./zoneagent/internal/etcdstore '^BenchmarkPlacementsCommitted$'
    ;;
  S3) run S3 ./deploy/e2e '^BenchmarkS3$' -benchtime 1x -timeout 30m ;;
  S4)
    run S4 ./controlplane/internal/replica '^BenchmarkReplicaS4$'
    run S4 ./controlplane/internal/api '^BenchmarkCreateVM$'
    ;;
  S7) run S7 ./federation '^BenchmarkS7' -benchtime 20000x ;;
  S12) run S12 ./deploy/e2e '^BenchmarkS12$' -benchtime 1x -timeout 30m ;;
  S13) run S13 ./deploy/e2e '^BenchmarkS13$' -benchtime 5x -timeout 30m ;;
  *)
    echo "bench.sh: there is no benchmark $name; there are ${known[*]}" >&2
    exit 2
    ;;
  esac
done
