"""The rules that keep the tree readable, checked where a linter does not reach."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import enforcer

PACKAGE = Path(enforcer.__file__).parent
ROOT = PACKAGE.parent
TESTS = Path(__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
NAMES = [str(path.relative_to(PACKAGE)) for path in MODULES]
# Lines. The longest files of code that is pleasant to read seldom have more.
LONGEST = 500
# Which step of a connection's path a folder belongs to.
PLACES = {
    "capture": "Step 1 of 6, capture: ",
    "geo": "Step 1 of 6, capture: ",
    "identify": "Step 2 of 6, identify: ",
    "policy": "Step 3 of 6, decide: ",
    "protocols": "Step 4 of 6, inspect: ",
    "masking": "Step 4 of 6, inspect: ",
    "recording": "Step 6 of 6, record: ",
}
# Beside the path: data, a short-lived builder, and what reads records afterwards.
BESIDE = {
    "geo/build.py",
    "geo/groups.py",
    "geo/iso.py",
    "recording/reader.py",
    "recording/verify.py",
    "masking/errors.py",
}
# `proxy` runs the whole path, so its modules each name a step or say that they conduct it.
CONDUCTING = "proxy"
PURE = ("protocols", "masking", "policy/engine.py", "policy/compiled.py", "flow.py", "verdict.py", "errors.py")
IMPURE = frozenset(
    [
        "asyncio",
        "socket",
        "ssl",
        "select",
        "selectors",
        "threading",
        "multiprocessing",
        "subprocess",
        "time",
        "datetime",
        "random",
        "secrets",
        "os",
        "pathlib",
        "io",
        "tempfile",
        "shutil",
        "logging",
        "structlog",
        "sqlite3",
        "uvloop",
        "urllib.request",
        "http.client",
        "requests",
    ]
)


# RFC 6455 (section 5.3) wants masking keys that nobody can foresee, least of all who chose the message.
CHANCE = {("protocols/websocket/frames.py", "secrets")}


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """(dotted module, line) of every import in a file, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            yield str(node.module), node.lineno
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def docstring(path: Path) -> str:
    return ast.get_docstring(ast.parse(path.read_text())) or ""


@pytest.mark.parametrize("name", NAMES)
def test_a_module_says_what_it_is(name: str) -> None:
    """A docstring with a first line that is a sentence; empty package files need none."""
    path = PACKAGE / name
    if not path.read_text().strip():
        return
    first = docstring(path).splitlines()[:1]
    assert first, f"{name} has no docstring"
    assert len(first[0]) > 20


@pytest.mark.parametrize("name", [name for name in NAMES if name.split("/")[0] in PLACES])
def test_a_module_of_the_pipeline_names_its_place(name: str) -> None:
    """A newcomer who opens any file knows where on the connection's path it stands."""
    path = PACKAGE / name
    if path.read_text().strip() and name not in BESIDE:
        assert docstring(path).startswith(PLACES[name.split("/", maxsplit=1)[0]]), docstring(path).splitlines()[0]


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith(f"{CONDUCTING}/")])
def test_a_module_of_the_proxy_names_a_step_or_conducts(name: str) -> None:
    """Its modules belong to different steps."""
    text = docstring(PACKAGE / name)
    places = r"Steps? [1-6]( (and|to) [1-6])? of 6, |The conductor: |What every session of a worker shares"
    known = re.match(places, text)
    assert known or not (PACKAGE / name).read_text().strip(), text.splitlines()[0]


@pytest.mark.parametrize("folder", ["enforcer", "tests", "bpf", "benchmarks", "tools"])
def test_no_file_is_too_long_to_read(folder: str) -> None:
    """Split by role before this is reached."""
    files = [path for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".c", ".h", ".sh")]
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in files}
    assert {name: length for name, length in lengths.items() if length > LONGEST} == {}


def test_every_package_has_its_tests() -> None:
    """`tests/` mirrors `enforcer/`: whoever looks for one finds the other."""
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    untested = {name for name in packages if not any((TESTS / name).glob("test_*.py")) and name not in ("demo",)}
    assert untested == set()


def test_only_the_loader_imports_bcc() -> None:
    """It keeps 150 MB of compiler resident; no process that stays may load it, also not inside a function."""
    found = {
        str(path.relative_to(PACKAGE))
        for path in MODULES
        for module, _ in imports(path)
        if module.split(".")[0] in ("bcc", "bpfcc")
    }
    assert found == {"capture/compiler.py"}


@pytest.mark.parametrize(
    "name", [name for name in NAMES if any(name == pure or name.startswith(f"{pure}/") for pure in PURE)]
)
def test_the_pure_core_touches_no_world(name: str) -> None:
    """Neither clock nor socket nor file nor thread nor chance: what goes in decides what comes out."""
    touched = {
        module: line
        for module, line in imports(PACKAGE / name)
        if (module in IMPURE or module.split(".")[0] in IMPURE) and (name, module.split(".")[0]) not in CHANCE
    }
    assert touched == {}


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith(("cli/", "demo/"))])
def test_nothing_but_the_command_line_prints(name: str) -> None:
    """The daemon logs; the loader's one error line goes to its parent."""
    calls = [
        node.lineno
        for node in ast.walk(ast.parse((PACKAGE / name).read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert len(calls) <= (2 if name in ("capture/loader.py", "geo/build.py") else 0), calls


@pytest.mark.parametrize("name", NAMES)
def test_no_assert_guards_anything(name: str) -> None:
    """`python -O` removes them, and a security check with them."""
    tree = ast.parse((PACKAGE / name).read_text())
    assert [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Assert)] == []


def test_every_test_says_the_truth_it_proves() -> None:
    """One sentence each: a failing test's name and sentence tell what is broken."""
    silent = [
        f"{path.relative_to(TESTS)}:{node.lineno}: {node.name}"
        for path in sorted(TESTS.rglob("test_*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
        and not ast.get_docstring(node)
    ]
    assert silent == []


def test_c_headers_carry_their_licence_and_purpose() -> None:
    """The programs are GPL, which the kernel asks for, and every header says what it holds."""
    for path in sorted((ROOT / "bpf").rglob("*.[ch]")):
        first, second = path.read_text().splitlines()[:2]
        assert first == "/* SPDX-License-Identifier: GPL-2.0-or-later */", path
        assert second.startswith("/* "), path
