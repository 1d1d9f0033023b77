"""Every technique there is, in the order in which they are told and tried."""

from __future__ import annotations

import fnmatch
import importlib

from enforcer.errors import UsageError
from enforcer.probe.inside.kit import TECHNIQUES, Technique
from enforcer.probe.launch import MODULES

# What the groups are about, in the order of the catalogue.
GROUPS = {
    "address forms": "other ways to write a destination",
    "sockets": "connections made in unusual ways",
    "protocols": "transports other than TCP and UDP",
    "UDP": "datagrams, in every way to send one",
    "names": "questions for names, with the token in every place of one",
    "source routing": "options and headers that lead a packet elsewhere after its destination was judged",
    "packets": "packets made by hand",
    "foreign families": "sockets that are not IP",
    "descriptors": "sockets that others opened",
    "loopback": "services of the host on its own addresses",
    "relays": "services of the host on Unix sockets and the like",
    "neighbours": "other processes of the host",
    "namespaces": "leaving the executor's namespaces",
    "cgroups": "leaving the executor's cgroup",
    "privileges": "what only root can ask of the kernel",
    "enforcer": "the enforcer itself",
    "proxy": "speaking to the proxy so that it goes where it must not",
    "timing": "the moments when something changes",
}


def _load() -> tuple[Technique, ...]:
    for name in MODULES:
        importlib.import_module(f"enforcer.probe.inside.{name}")
    order = list(GROUPS)
    return tuple(sorted(TECHNIQUES.values(), key=lambda one: order.index(one.group)))


CATALOGUE = _load()


def select(patterns: tuple[str, ...]) -> tuple[Technique, ...]:
    """The techniques whose name or group matches one of the globs; all without any. Raises UsageError for none."""
    if not patterns:
        return CATALOGUE
    chosen = tuple(
        one
        for one in CATALOGUE
        if any(fnmatch.fnmatchcase(text, pattern) for pattern in patterns for text in (one.name, one.group))
    )
    if not chosen:
        raise UsageError(f"no technique matches {' or '.join(patterns)}; 'enforcer probe --list' names them")
    return chosen


def as_markdown(techniques: tuple[Technique, ...] = CATALOGUE) -> str:
    """The catalogue as the table of docs/containment.md."""
    lines = ["| group | technique | tried as | what it tries | what stops it |", "|---|---|---|---|---|"]
    for one in techniques:
        users = "root" if one.users == "root" else "root, user"
        lines.append(f"| {one.group} | `{one.name}` | {users} | {_cell(one.tries)} | {_cell(one.stopped_by)} |")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.rstrip(".").replace("|", "\\|").replace("<", "&lt;")
