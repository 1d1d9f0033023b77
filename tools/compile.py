"""Makes the compiled tree of this checkout with mypyc, when there is none of exactly this code yet.

.venv/bin/python -P tools/compile.py [--test]        --test: also run the tests of what is compiled, compiled
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from enforcer.compiled import PARTS, compiled_trees, fingerprint, running_from

# What runs for every message. Of masking only the confirmation of hits: the rest is Hyperscan's work, and relies on
# unchanged bytes being the very same object, which mypyc does not promise. Two libraries of about equal size, which the
# C compiler works on side by side; within each it sees all at once.
HOT = (
    (
        "enforcer/protocols/http1/*.py",
        "enforcer/protocols/http2/*.py",
        "enforcer/protocols/tls/*.py",
        "enforcer/protocols/websocket/*.py",
        "enforcer/recording/chain.py",
        "enforcer/recording/check.py",
        "enforcer/supervisor/records.py",
    ),
    (
        "enforcer/masking/confirm.py",
        "enforcer/masking/confirming.py",
        "enforcer/masking/contacts.py",
        "enforcer/masking/secrets.py",
        "enforcer/masking/sums.py",
        "enforcer/masking/validators.py",
        "enforcer/protocols/base.py",
        "enforcer/protocols/mysql/results.py",
        "enforcer/protocols/mysql/server.py",
        "enforcer/protocols/opaque.py",
        "enforcer/protocols/postgres/*.py",
        "enforcer/proxy/client_side.py",
        "enforcer/proxy/denial.py",
        "enforcer/proxy/exchange.py",
        "enforcer/proxy/judge.py",
        "enforcer/proxy/ledger.py",
        "enforcer/proxy/outbox.py",
        "enforcer/proxy/securing.py",
        "enforcer/proxy/session.py",
        "enforcer/proxy/silence.py",
        "enforcer/proxy/state.py",
        "enforcer/proxy/switching.py",
        "enforcer/proxy/texts.py",
        "enforcer/proxy/tunnel.py",
    ),
)
# What the mypyc command does, but with more than one library.
_SETUP = """
from mypyc.build import mypycify
from setuptools import setup
libraries = {libraries}
modules = [module for library in libraries for module in library]
extensions = mypycify(["--config-file", "pyproject.toml", *modules], separate=[(one, None) for one in libraries])
setup(name="compiled", ext_modules=extensions)
"""
TESTS = (
    "tests/masking",
    "tests/protocols",
    "tests/proxy",
    "tests/recording/test_check.py",
    "tests/recording/test_chain.py",
    "tests/supervisor/test_records.py",
)
# Tests that replace a constant or a method of a compiled module: both are built in there.
PATCHING = (
    "test_remembered_statements_are_bounded",
    "test_a_masked_row_over_the_limit_ends_the_flow_at_its_header",
    "test_what_a_refused_client_goes_on_sending_is_not_kept",
)


def build(checkout: Path) -> Path:
    """The compiled tree, made if need be; the trees of older code are removed."""
    trees = compiled_trees(checkout)
    tree = trees / fingerprint(checkout)
    if tree.is_dir():
        return tree
    begun = time.monotonic()
    print("compile: the hot path, for two or three minutes", flush=True)
    unfinished = trees / f"{tree.name}.unfinished"
    shutil.rmtree(trees, ignore_errors=True)
    for part in PARTS:
        shutil.copytree(checkout / part, unfinished / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(checkout / "pyproject.toml", unfinished)
    libraries = [
        [str(path.relative_to(unfinished)) for pattern in patterns for path in sorted(unfinished.glob(pattern))]
        for patterns in HOT
    ]
    script = _SETUP.format(libraries=libraries)
    mypyc = [sys.executable, "-P", "-c", script, "build_ext", "--inplace", "--parallel", str(len(HOT))]
    done = subprocess.run(mypyc, cwd=unfinished, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = [line for line in (done.stdout + done.stderr).splitlines() if "error" in line] or [done.stderr]
        raise SystemExit(f"compile: mypyc failed: {lines[0].strip()}; the enforcer runs uncompiled, at half the speed")
    shutil.rmtree(unfinished / "build")
    unfinished.rename(tree)
    # Processes of other users than root could not keep what they compile at each start.
    subprocess.run([sys.executable, "-P", "-m", "compileall", "-q", str(tree / "enforcer")], check=True)
    print(f"compile: {sum(map(len, libraries))} modules in {time.monotonic() - begun:.0f} s")
    return tree


def test(checkout: Path, tree: Path) -> int:
    """Runs the compiled modules' own tests on them; pytest's exit status."""
    chosen = " and ".join(f"not {name}" for name in PATCHING)
    # Appended, so that the checkout itself does not come before the tree.
    options = ["-q", "-p", "no:cacheprovider", "--import-mode=append", "-k", chosen]
    environment = {**os.environ, "PYTHONPATH": str(tree), "ENFORCER_TREE": str(tree)}
    command = [sys.executable, "-P", "-m", "pytest", "--numprocesses", "2", *options, *TESTS]
    return subprocess.run(command, cwd=checkout, env=environment, check=False).returncode


def main() -> int:
    parser = argparse.ArgumentParser(prog="compile", description="Make the compiled tree of this checkout.")
    parser.add_argument("--test", action="store_true", help="run the compiled modules' tests on them")
    options = parser.parse_args()
    checkout = running_from()
    tree = build(checkout)
    return test(checkout, tree) if options.test else 0


if __name__ == "__main__":
    sys.exit(main())
