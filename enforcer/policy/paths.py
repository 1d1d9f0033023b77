"""Step 3 of 6, decide: templates of paths, such as `/v1/users/{id}` and `/files/**`.

A segment in braces is any one segment; `*` is any text within a segment; `/**` at the end is any rest. Templates are
compared with paths in the normal form of `enforcer.protocols.target`. Parsing raises ValueError with one line,
`what is wrong; what mends it`.
"""

from __future__ import annotations

import re
from functools import lru_cache

from enforcer.policy.words import glob_matches
from enforcer.protocols.target import Ambiguous, plain_path

_REST = "/**"
_NAMED = re.compile(r"\{[A-Za-z_][A-Za-z0-9_]*\}")


def parse_template(text: str) -> str:
    """The template as it is written, checked."""
    if not text.startswith("/"):
        raise ValueError(f"{text!r} is not a path; begin it with '/'")
    if "?" in text:
        raise ValueError(f"{text!r} has a query, and paths are compared without; remove it")
    segments = text.removesuffix(_REST)[1:].split("/") if text != _REST else []
    for segment in segments:
        if "**" in segment:
            raise ValueError(f"{text!r} has '**' within; write it once, at the end, as /**")
        if ("{" in segment or "}" in segment) and not _NAMED.fullmatch(segment):
            raise ValueError(f"{text!r} has braces around less or more than a segment; write /{{name}}, or use '*'")
    example = "/" + "/".join("x" if "{" in segment else segment.replace("*", "x") for segment in segments)
    try:
        normal = plain_path(example)
    except Ambiguous as doubt:
        raise ValueError(f"{text!r} never matches: {doubt}; write the path as servers know it") from None
    if normal != example:
        raise ValueError(f"{text!r} is not in normal form; do not encode what needs none, and encode in capitals")
    return text


def template_matches(template: str, path: str) -> bool:
    """`path`: in normal form."""
    wanted, rest = _segments(template)
    segments = path[1:].split("/")
    if len(segments) <= len(wanted) if rest else len(segments) != len(wanted):
        return False
    for glob, segment in zip(wanted, segments, strict=False):
        if not (segment if glob == "*" else glob == segment or glob_matches(glob, segment)):
            return False
    return True


@lru_cache(maxsize=4096)
def _segments(template: str) -> tuple[tuple[str, ...], bool]:
    """Globs of its segments, and whether any rest may follow."""
    rest = template.endswith(_REST)
    text = template.removesuffix(_REST)
    segments = text[1:].split("/") if text else []
    return tuple("*" if segment.startswith("{") else segment for segment in segments), rest
