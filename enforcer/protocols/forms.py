"""Step 4 of 6, inspect: values that are percent-encoded, in request targets and in forms.

Gets an encoded text and what rewrites one value; hands on the text with the values that changed written anew, and all
others exactly as they came.
"""

from __future__ import annotations

import re
from urllib.parse import quote_from_bytes, unquote_to_bytes

from enforcer.protocols.base import Rewrite

# What masks leave, and what WHATWG's URL standard leaves unencoded in forms.
_SAFE = "*-._"
# What stands between values in addresses and lists.
_BETWEEN = re.compile(rb"([/?&=;,\" <>])")


def rewrite_value(value: bytes, rewrite: Rewrite, *, plus: bool) -> bytes:
    """One percent-encoded value, the same object where it stays. `plus`: its blanks are written `+` (form, query)."""
    plain = value.replace(b"+", b" ") if plus and b"+" in value else value
    if b"%" in plain:
        plain = unquote_to_bytes(plain)
    rewritten = rewrite(plain)
    if rewritten is plain or rewritten == plain:
        return value
    encoded = quote_from_bytes(rewritten, _SAFE).encode("ascii")
    return encoded.replace(b"%20", b"+") if plus else encoded


def rewrite_pairs(pairs: bytes, rewrite: Rewrite) -> bytes:
    """`name=value&...` (WHATWG URL, application/x-www-form-urlencoded), names and values each for themselves."""
    written = []
    for pair in pairs.split(b"&"):
        words = pair.split(b"=", 1)
        written.append(b"=".join([rewrite_value(word, rewrite, plus=True) if word else word for word in words]))
    return b"&".join(written)


def rewrite_field(value: bytes, rewrite: Rewrite) -> bytes:
    """A field's value as it is written, and what is percent-encoded in it (`Referer`, links) as it is read."""
    rewritten = rewrite(value)
    if b"%" not in rewritten:
        return rewritten
    words = _BETWEEN.split(rewritten)
    return b"".join([rewrite_value(word, rewrite, plus=False) if b"%" in word else word for word in words])


def rewrite_target(target: str, rewrite: Rewrite) -> str:
    """A request target in origin-form: the segments of its path, the pairs of its query."""
    path, mark, query = target.encode("ascii").partition(b"?")
    segments = [rewrite_value(segment, rewrite, plus=False) if segment else b"" for segment in path.split(b"/")]
    return (b"/".join(segments) + mark + (rewrite_pairs(query, rewrite) if query else b"")).decode("ascii")
