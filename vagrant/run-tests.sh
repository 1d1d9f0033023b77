#!/bin/bash
# The README's two commands on this machine's kernel: every test and the demo. Ends with their status.
set -euo pipefail
[ "$(id -u)" = 0 ] || { echo "run-tests: must be root; use sudo" >&2; exit 1; }
cd "$(dirname "$0")/.."
echo "kernel $(uname -r)"
make test
make demo
