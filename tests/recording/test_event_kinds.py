"""The kinds of events that the supervisor records."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
KIND = re.compile(r"""_record\(\s*"([a-z ]+)\"""")


def test_every_kind_of_event_is_documented() -> None:
    """An auditor finds in docs/records.md what each `kind` in the table `events` means."""
    code = "".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "enforcer/supervisor").glob("*.py")))
    page = (ROOT / "docs/records.md").read_text(encoding="utf-8")
    documented = {
        kind for row in re.findall(r"^\|([^|]+)\|", page, re.MULTILINE) for kind in re.findall("`([a-z ]+)`", row)
    }
    kinds = set(KIND.findall(code))
    assert {"started", "executor attached"} <= kinds
    assert kinds - documented == set()
