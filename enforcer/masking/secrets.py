"""Step 4 of 6, inspect: is this candidate really a secret?

Like `confirm`, for passwords, keys and tokens: gets a text and the end of a candidate, hands on the span or None. Of
what is longer than `MAX_SPAN` it hands on the beginning; the row's `tail` says how it goes on.
"""

from __future__ import annotations

import binascii
import re
from typing import Final

from enforcer.masking.confirm import ALNUM, MAX_SPAN, Span

STANDARD_BASE64: Final = bytes.maketrans(b"-_", b"+/")
"""From the alphabet for URLs and file names to the older one (RFC 4648)."""

# What stands where a password would: no value, the word of a form, a variable of the program.
_PLACEHOLDER: Final = re.compile(
    rb"(?i)(?:none|null|nil|true|false|undefined|string|str|text|required|optional|pass(?:word|wd)?|secret|changed|"
    rb"hidden|redacted|masked|prompt|x+|\.+|\*.*|\$.*|%[sd(].*|%\w+%|\{.*|<.*|\[.*|\(.*|os\..*|env\..*|process\..*|"
    rb"self\..*)\Z"
)
_SURE: Final = frozenset(b"\"'`=")
_PASSWORD: Final = re.compile(rb"[^\s\x00\"'`<>,;&|\\]{4,%d}" % MAX_SPAN)
_QUOTED_PASSWORD: Final = re.compile(rb"[^\r\n\t\x00\"'`<>\\]{4,%d}(?=[\"'`\\])" % MAX_SPAN)
_PROSE: Final = re.compile(rb"[A-Za-z.:()/-]+\Z")


def password(text: bytes, end: int) -> Span | None:
    """The password that begins with the last byte before `end`. A plain word after a colon is taken for prose."""
    start = end - 1
    before = text[start - 1]
    found = _QUOTED_PASSWORD.match(text, start) if before in b"\"'`" else None
    if found is None:
        found = _PASSWORD.match(text, start)
    if found is None or _PLACEHOLDER.match(found[0]):
        return None
    if before not in _SURE and _PROSE.match(found[0]):
        return None
    return found.span()


_URL_PASSWORD: Final = re.compile(rb"[^\s\x00\"'`<>/@\\]{1,%d}(?=@[0-9A-Za-z\[%%])" % MAX_SPAN)


def url_password(text: bytes, end: int) -> Span | None:
    """The password of `scheme://user:password@host` (RFC 3986, section 3.2.1) that begins just before `end`."""
    found = _URL_PASSWORD.match(text, end - 1)
    if found is None or _PLACEHOLDER.match(found[0]):
        return None
    return found.span()


def token(head: int, text: bytes, end: int) -> Span | None:
    """The secret whose first `head` bytes end at `end`: what it looks like was all that there is to know."""
    start = end - head
    return None if start and text[start - 1] in ALNUM else (start, end)


def token_of(value: re.Pattern[bytes], text: bytes, end: int) -> Span | None:
    """The secret that ends at `end`, of a length that varies."""
    found = value.search(text, max(0, end - MAX_SPAN), end)
    return None if found is None else found.span()


def assigned(value: re.Pattern[bytes], text: bytes, end: int) -> Span | None:
    """The value that begins with the last byte before `end`, where a name and a sign of assignment stand before it."""
    found = value.match(text, end - 1)
    return None if found is None else found.span()


PEM_SEEN: Final = 16 + 3 * 96
_PEM_BODY: Final = re.compile(
    rb"[\s\x00\\]{0,6}(?:[A-Z][A-Za-z-]{2,20}: ?[^\r\n\x00\\]{1,64}[\s\x00\\]{1,6}){0,2}[A-Za-z0-9+/]{16}"
)


def pem_key(text: bytes, end: int) -> Span | None:
    """The beginning of the key below the line that ends at `end` (RFC 7468, section 2), headers included."""
    found = _PEM_BODY.match(text, end)
    return None if found is None else found.span()


JOSE_HEAD: Final = 16
_JOSE_SEEN: Final = 128
_JOSE: Final = re.compile(rb"[A-Za-z0-9_-]{%d,%d}" % (JOSE_HEAD, _JOSE_SEEN))
_JOSE_PARAMETER: Final = re.compile(
    rb'\{\s*"(?:alg|typ|kid|enc|cty|jku|jwk|x5[uct]|x5t#S256|zip|crit|epk|ap[uv]|p2[sc]|b64|nonce|iss|ver|ppt)"\s*:'
)


def jwt(text: bytes, end: int) -> Span | None:
    """The beginning of a JWS or JWE in compact form (RFC 7515, RFC 7516): its header, in base64url, opens an object
    with a registered parameter, and a dot ends it where that is near enough to be seen."""
    start = end - JOSE_HEAD
    found = _JOSE.match(text, start)
    if found is None or (start and text[start - 1] in ALNUM):
        return None
    letters = found[0]
    if len(letters) < _JOSE_SEEN and text[found.end() : found.end() + 1] != b".":
        return None
    header = binascii.a2b_base64(letters[: len(letters) & ~3].translate(STANDARD_BASE64))
    return (start, end) if _JOSE_PARAMETER.match(header) else None
