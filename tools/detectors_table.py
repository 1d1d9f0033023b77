"""Prints the tables of docs/masking.md, from the detectors themselves.

.venv/bin/python -P tools/detectors_table.py
"""

from __future__ import annotations

import sys

from enforcer.masking.detectors import DETECTORS, GROUPS
from enforcer.masking.rows import Detector

_WIDEST = 44


def example(detector: Detector) -> str:
    """The first example, as text of one line, its value shortened where it is long."""
    text = detector.examples[0].decode().replace("\n", "\\n").replace("<<", "").replace(">>", "").replace("|", "\\|")
    return text if len(text) <= _WIDEST else f"{text[:_WIDEST]}…"


def tables() -> str:
    """Both tables, as Markdown."""
    sets = [f"| `{name}` | {', '.join(sorted(members))} |" for name, members in GROUPS.items()]
    rows = [f"| `{d.name}` | `{example(d)}` | {d.source} |" for d in sorted(DETECTORS, key=lambda one: one.name)]
    return "\n".join(
        [
            "| set | detectors in it |",
            "|---|---|",
            *sets,
            "",
            "| detector | for example | after |",
            "|---|---|---|",
            *rows,
        ]
    )


if __name__ == "__main__":
    sys.stdout.write(f"{tables()}\n")
