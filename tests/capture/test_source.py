"""One text of many headers: each once, and every line still knowing where it is from."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from enforcer.capture.source import flatten, source_directory
from enforcer.errors import HostError


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"{name}.h").write_text(text)
    return folder


def test_every_quoted_include_is_inlined_once(tmp_path: Path) -> None:
    """Also when two headers want it, and when they want each other."""
    write(tmp_path, a='#include "b.h"\nint a;\n', b='#include "a.h"\nint b;\n')
    (tmp_path / "main.c").write_text('#include <stdio.h>\n#include "a.h"\n#include "b.h"\nint main;\n')
    text = flatten(tmp_path, "main.c")
    assert [line for line in text.splitlines() if not line.startswith("#line")] == [
        "#include <stdio.h>",
        "int b;",
        "int a;",
        "int main;",
    ]


@pytest.mark.parametrize(
    ("inner", "outer", "place"), [("int broken = ;", "", "hooks/inner.h:3:"), ("", "int broken = ;", "main.c:4:")]
)
def test_the_compiler_names_the_real_file_and_line(tmp_path: Path, inner: str, outer: str, place: str) -> None:
    """gcc's own error positions, inside an included file and in the main file after two includes."""
    (tmp_path / "hooks").mkdir()
    (tmp_path / "hooks" / "inner.h").write_text(f"int fine;\n\n{inner}\n")
    include = '#include "hooks/inner.h"\n'
    (tmp_path / "main.c").write_text(f"int one;\n{include}{include}{outer}\n")
    flat = tmp_path / "flat.c"
    flat.write_text(flatten(tmp_path, "main.c"))
    told = subprocess.run(["gcc", "-fsyntax-only", str(flat)], capture_output=True, text=True, check=False).stderr
    assert place in told


def test_a_missing_header_is_one_clear_error(tmp_path: Path) -> None:
    """Which file, and that the package is damaged."""
    (tmp_path / "main.c").write_text('#include "gone.h"\n')
    with pytest.raises(HostError, match=r"gone\.h: No such file or directory; reinstall the package") as caught:
        flatten(tmp_path, "main.c")
    assert "\n" not in str(caught.value)


def test_our_own_source_is_found_and_whole() -> None:
    """Every header of the tree ends up in the one text, and no quoted include is left."""
    directory = source_directory()
    text = flatten(directory)
    assert '#include "' not in text
    for header in directory.rglob("*.h"):
        assert f'#line 1 "{header.relative_to(directory)}"' in text
