"""The corpus of request smuggling (`tests/corpora/http_smuggling/`), as cases."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import yaml

from tests.fuzz.target import CORPORA


@dataclass(frozen=True)
class Case:
    """`raw`: the client's bytes. `upstream`: the requests (`METHOD target`) that go upstream whole."""

    name: str
    technique: str
    source: str
    raw: bytes
    upstream: tuple[str, ...]


@cache
def cases() -> tuple[Case, ...]:
    """Every case of every file; their names are unique."""
    found = []
    for path in sorted((CORPORA / "http_smuggling").glob("*.yaml")):
        for entry in yaml.load(path.read_bytes(), yaml.CSafeLoader):
            raw = "".join(entry["raw"]).encode("latin-1")
            case = Case(entry["name"], entry["technique"], entry["source"], raw, tuple(entry["upstream"]))
            found.append(case)
    return tuple(found)
