"""Step 4 of 6, inspect: values that are percent-encoded, in request targets and in forms.

Gets an encoded text and what rewrites one value; hands on the text with the values that changed written anew, and all
others exactly as they came.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import quote_from_bytes, unquote_to_bytes

from enforcer.protocols.base import Answered, Replaced, Rewrite

# What masks leave, and what WHATWG's URL standard leaves unencoded in forms.
_SAFE = "*-._"
# What stands between values in addresses and lists.
_BETWEEN = re.compile(rb"([/?&=;,\" <>])")


Pair = Callable[[bytes, bytes], bytes | None]
"""Name and value of a pair to what stands for the value; None where nothing does for its name."""


def _decoded(value: bytes, *, plus: bool) -> bytes:
    plain = value.replace(b"+", b" ") if plus and b"+" in value else value
    return unquote_to_bytes(plain) if b"%" in plain else plain


def rewrite_value(value: bytes, rewrite: Rewrite, *, plus: bool) -> bytes:
    """One percent-encoded value, the same object where it stays. `plus`: its blanks are written `+` (form, query)."""
    plain = _decoded(value, plus=plus)
    rewritten = rewrite(plain)
    if rewritten is plain or rewritten == plain:
        return value
    encoded = quote_from_bytes(rewritten, _SAFE).encode("ascii")
    return encoded.replace(b"%20", b"+") if plus else encoded


def rewrite_pairs(pairs: bytes, rewrite: Rewrite, named: Pair | None = None) -> bytes:
    """`name=value&...` (WHATWG URL, application/x-www-form-urlencoded), names and values each for themselves, but for
    what `named` gives."""
    written = []
    for pair in pairs.split(b"&"):
        words = pair.split(b"=", 1)
        if named is not None and len(words) == 2:
            new = named(_decoded(words[0], plus=True), _decoded(words[1], plus=True))
            if new is not None:
                value = quote_from_bytes(new, _SAFE).replace("%20", "+").encode("ascii")
                written.append(rewrite_value(words[0], rewrite, plus=True) + b"=" + value)
                continue
        written.append(b"=".join([rewrite_value(word, rewrite, plus=True) if word else word for word in words]))
    return b"&".join(written)


# Fields of an answer that say how it is framed, coded and upgraded.
_FRAMING = frozenset(
    (
        *(b"content-length", b"content-type", b"content-encoding", b"transfer-encoding", b"connection", b"upgrade"),
        *(b"trailer", b"sec-websocket-accept", b"sec-websocket-protocol", b"grpc-status", b"grpc-encoding"),
    )
)


CLEAN_HEADS = 256
"""Heads of answers with nothing to hide that are remembered, each of which may be of some KiB."""


def remember(clean: set[object], head: object) -> None:
    if len(clean) >= CLEAN_HEADS:
        clean.clear()
    clean.add(head)


def answered_field(name: bytes, value: bytes, answered: Answered) -> bytes:
    """A header field of an answer as its client gets it."""
    if name.lower() in _FRAMING or name[:1] == b":":
        return value
    new = answered(name.decode("latin-1"), value)
    return value if new is value else field_value(new)


def rewrite_field(value: bytes, rewrite: Rewrite) -> bytes:
    """A field's value as it is written, and what is percent-encoded in it (`Referer`, links) as it is read."""
    rewritten = rewrite(value)
    if b"%" not in rewritten:
        return rewritten
    words = _BETWEEN.split(rewritten)
    return b"".join([rewrite_value(word, rewrite, plus=False) if b"%" in word else word for word in words])


# What no field's value may hold (RFC 9110 section 5.5).
_NOT_IN_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


def field_value(value: bytes) -> bytes:
    """`value` as a header field may have it."""
    return _NOT_IN_VALUE.sub(b"*", value).strip(b" \t")


def named_field(name: bytes, value: bytes, replaced: Replaced | None) -> bytes | None:
    """What stands for a header field of a request for its name."""
    new = None if replaced is None else replaced("header", name.decode("latin-1"), value)
    return None if new is None else field_value(new)


def named_pairs(replaced: Replaced | None) -> Pair | None:
    """The same for the pairs of a query."""
    if replaced is None:
        return None
    return lambda name, value: replaced("query", name.decode("utf-8", "replace"), value)


def rewrite_target(target: str, rewrite: Rewrite, named: Pair | None = None) -> str:
    """A request target in origin-form: the segments of its path, the pairs of its query."""
    path, mark, query = target.encode("ascii").partition(b"?")
    segments = [rewrite_value(segment, rewrite, plus=False) if segment else b"" for segment in path.split(b"/")]
    return (b"/".join(segments) + mark + (rewrite_pairs(query, rewrite, named) if query else b"")).decode("ascii")
