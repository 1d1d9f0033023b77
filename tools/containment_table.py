"""Writes the table of docs/containment.md from the catalogue itself.

.venv/bin/python tools/containment_table.py
"""

from __future__ import annotations

import re
from pathlib import Path

from enforcer.probe.catalogue import as_markdown

PAGE = Path(__file__).resolve().parent.parent / "docs/containment.md"
TABLE = re.compile(r"^\| group \|.*?(?=^[^|]|\Z)", re.MULTILINE | re.DOTALL)


def main() -> None:
    text = PAGE.read_text()
    PAGE.write_text(TABLE.sub(lambda _found: as_markdown() + "\n", text, count=1).rstrip() + "\n")


if __name__ == "__main__":
    main()
