"""Step 3 of 6, decide: the words a policy names existing process trees with, read and matched.

Gets a glob over cgroup v2 paths or a systemd unit; hands on the glob, relative to the cgroup mount. Never looks at the
file system. Functions that parse raise ValueError with one line, `what is wrong; what mends it`.
"""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from functools import lru_cache

# Bytes. Beyond it a star for what changes (a pod's or container's id) says more than the id.
MAX_PATTERN = 200
# systemd.unit(5): the characters of a unit's name, and the star of our globs.
_UNIT = re.compile(r"[A-Za-z0-9:_.\\*-]+(@[A-Za-z0-9:_.\\*@-]+)?\.(service|scope)")
# systemd puts "_" before names that the kernel uses in a cgroup's directory, or that begin like one of those.
_ESCAPED = re.compile(
    r"[_.]|cgroup\.|(cpu|cpuacct|cpuset|io|blkio|memory|devices|pids|bpf-[a-z-]+)\.|(tasks|release_agent|notify_on_release)$"
)


def parse_cgroup_pattern(text: str) -> str:
    """`system.slice/agent-*.service`: a path below the mount; `*` stands for any text within one component."""
    if len(text.encode()) > MAX_PATTERN:
        raise ValueError(f"a cgroup pattern of {len(text.encode())} bytes is too long; the limit is {MAX_PATTERN}")
    parts = _components(text)
    if len(parts) == 1 and "*" in text:
        raise ValueError(
            f"{text!r} would take over top-level cgroups; write two components, such as system.slice/{text}"
        )
    return text


def parse_cgroup_path(text: str) -> str:
    """One cgroup: a path as a pattern has it, without `*`."""
    _components(text)
    if "*" in text:
        raise ValueError(f"{text!r} is not one cgroup; write its path without '*'")
    return text


def parse_unit(text: str) -> str:
    """The pattern of a unit of the system manager: where systemd puts it when it has no `Slice=` of its own.

    An instance of a template lies in a slice named after the template (systemd.slice(5), DefaultInstance slices).
    """
    if not _UNIT.fullmatch(text):
        raise ValueError(
            f"{text!r} is not a service or scope of systemd; write NAME.service, or use cgroup with the path"
        )
    prefix, template, _ = text.partition("@")
    name = f"_{text}" if _ESCAPED.match(text) else text
    folder = f"system.slice/system-{_escape(prefix)}.slice" if template else "system.slice"
    return parse_cgroup_pattern(f"{folder}/{name}")


@lru_cache(maxsize=4096)
def cgroup_matches(pattern: str, path: str) -> bool:
    """Does `pattern` name the cgroup at `path`, or one above it? What governs a tree governs all of it."""
    wanted, parts = pattern.split("/"), path.split("/")
    return len(wanted) <= len(parts) and all(
        fnmatchcase(part, _only_stars(glob)) for glob, part in zip(wanted, parts, strict=False)
    )


def _components(text: str) -> list[str]:
    if text.startswith("/"):
        raise ValueError(f"{text!r} begins with '/'; write the path below the cgroup mount, such as system.slice/NAME")
    parts = text.split("/")
    if any(part in ("", ".", "..") for part in parts):
        raise ValueError(f"{text!r} has an empty component, '.' or '..'; write a path such as system.slice/NAME")
    return parts


def _escape(prefix: str) -> str:
    r"""As in the names of slices, where `-` is a level: `db-agent` becomes `db\x2dagent`."""
    escaped = re.sub(r"[\\-]", lambda sign: f"\\x{ord(sign[0]):02x}", prefix)
    return f"\\x2e{escaped[1:]}" if escaped.startswith(".") else escaped


def _only_stars(glob: str) -> str:
    """The same glob for fnmatch, to which `?` and `[` would be wildcards as well."""
    return glob.replace("[", "[[]").replace("?", "[?]")
