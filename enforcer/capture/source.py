"""Step 1 of 6, capture: turns `bpf/enforcer.c` and its headers into the one text that BCC compiles.

BCC makes programs only of functions in its main file and rewrites map calls only there, so quoted includes are inlined
(once each, with `#line` kept so that compiler errors name the real file); `<...>` includes stay.
"""

from __future__ import annotations

import re
from pathlib import Path

from enforcer.errors import HostError

_INCLUDE = re.compile(r'^#include "([^"]+)"\s*$')


def source_directory() -> Path:
    """Where `bpf/` is: beside the package in a checkout, inside it in an installed wheel.

    Raises HostError when neither exists.
    """
    package = Path(__file__).resolve().parent.parent
    for candidate in (package.parent / "bpf", package / "bpf"):
        if (candidate / "enforcer.c").is_file():
            return candidate
    raise HostError(f"bpf/enforcer.c is not beside {package}; reinstall the package")


def flatten(directory: Path, main: str = "enforcer.c") -> str:
    """The text of `main` with every quoted include inlined once. Raises HostError for a missing file."""
    seen: set[Path] = set()

    def inline(name: str) -> list[str]:
        path = (directory / name).resolve()
        if path in seen:
            return []
        seen.add(path)
        try:
            text = path.read_text()
        except OSError as error:
            raise HostError(f"cannot read {path}: {error.strerror}; reinstall the package") from error
        lines = [f'#line 1 "{name}"']
        for number, line in enumerate(text.splitlines(), start=1):
            match = _INCLUDE.match(line)
            if match is None:
                lines.append(line)
            else:
                lines += [*inline(match[1]), f'#line {number + 1} "{name}"']
        return lines

    return "\n".join(inline(main)) + "\n"
