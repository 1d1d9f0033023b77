"""The compiled tree: a copy of this package whose hot modules mypyc made into C extensions (`tools/compile.py`).

It lies in `build/compiled/FINGERPRINT` beside the package, named by what it was made of: edit a source and it no longer
counts. `enforcer run` and everything it starts runs from it when it is there, and as plain Python, at half the speed,
when it is not. Both are the same code, and both are tested.
"""

from __future__ import annotations

import hashlib
import os
import sys
from functools import cache
from pathlib import Path
from typing import NoReturn

# What a compiled tree is a copy of. The rest of the checkout is not needed at run time.
PARTS = ("enforcer", "bpf", "policies")


def running_from() -> Path:
    """The tree that this process's package is in."""
    return Path(__file__).resolve().parent.parent


def compiled_trees(checkout: Path) -> Path:
    return checkout / "build" / "compiled"


@cache
def fingerprint(tree: Path) -> str:
    """Hash of every source file of a checkout, of how they are compiled, and of the Python that it would be for."""
    digest = hashlib.sha256(sys.version.encode() + (tree / "tools" / "compile.py").read_bytes())
    for part in PARTS:
        for path in sorted((tree / part).rglob("*")):
            if path.suffix in {".py", ".c", ".h", ".yaml", ".xz", ".tab"}:
                digest.update(f"{path.relative_to(tree)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def find_tree() -> Path | None:
    """The compiled tree of exactly this code, or None. A process that runs from it finds itself."""
    here = running_from()
    if here.parent.name == "compiled":
        return here
    tree = compiled_trees(here) / fingerprint(here)
    return tree if tree.is_dir() else None


def run_from(tree: Path) -> NoReturn:
    """Starts this command again with the package of `tree`; everything it starts in turn runs from there too."""
    path = os.pathsep.join(filter(None, [str(tree), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path}
    command = [sys.executable, "-P", "-m", "enforcer", *sys.argv[1:]]
    os.execve(sys.executable, command, environment)  # noqa: S606 - the same program, from another directory
