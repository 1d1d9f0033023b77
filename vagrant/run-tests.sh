#!/bin/bash
# What this machine's kernel has to pass: every test, the demo, and the escape probe in both modes. Runs all of them, names those that
# failed, and ends with 1 if one did. None of it is emulated: `make test-kernels` is for where there is no such machine.
set -uo pipefail
[ "$(id -u)" = 0 ] || { echo "run-tests: must be root; use sudo" >&2; exit 1; }
cd "$(dirname "$0")/.." || exit 1
echo "run-tests: kernel $(uname -r), security modules $(cat /sys/kernel/security/lsm 2> /dev/null || echo unknown)"
failed=()
make test || failed+=("make test")
make demo || failed+=("make demo")
mkdir -p build
for mode in isolated attached; do
    .venv/bin/enforcer probe --mode "$mode" --report "build/probe-$mode.json"
done
.venv/bin/python -m tests.kernels.judge build/probe-isolated.json build/probe-attached.json || failed+=("enforcer probe")
if [ ${#failed[@]} -gt 0 ]; then
    printf 'run-tests: FAILED: %s\n' "${failed[@]}" >&2
    exit 1
fi
echo "run-tests: on $(uname -r) everything passed"
