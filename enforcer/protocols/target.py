"""Step 4 of 6, inspect: what a request target says, where every server reads it the same way.

Gets a target as it was sent; hands on its path in one normal form, or its query's parameters. Where two readers may
differ (dot segments, encoded slashes, overlong UTF-8) it raises `Ambiguous` and never guesses.
"""

from __future__ import annotations

import re
import unicodedata

# RFC 3986 section 2.3. The dot is one too, but encoded it is written for a reader that does not see it.
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_~")
# What nobody reads in two ways, but for dots at the beginning of a segment.
_PLAIN = re.compile(r"(?:/[A-Za-z0-9_~:@!$&'()*+,=.-]+)+/?|/")
_ODD = re.compile(r"[^!-~]|[\\;#]")
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})?")
# Characters that divide, end or hide a part of a path once something decodes them.
_DIVIDING = {ord("."): "dot", ord("/"): "slash", ord("\\"): "backslash", ord(";"): "semicolon"}
_DIVIDERS = frozenset("./\\;%?#")
_ENCODED_BYTE = re.compile(r"%([0-9A-Fa-f]{2})")
_HEXADECIMAL = frozenset("0123456789ABCDEFabcdef")


class Ambiguous(ValueError):
    """Two readers may take it for two things. Its text says why and quotes nothing."""


def plain_path(target: str) -> str:
    """The path of `target` in normal form: unreserved characters decoded, other escapes in capitals (RFC 3986
    section 6.2.2). Raises Ambiguous."""
    path = target.partition("?")[0]
    if _PLAIN.fullmatch(path) and "/." not in path:
        return path
    if not path.startswith("/"):
        raise Ambiguous("it does not begin with a slash")
    if _ODD.search(path):
        raise Ambiguous("a backslash, a semicolon, or a character that has to be encoded")
    normal = _ESCAPE.sub(_unescaped, path)
    segments = normal[1:].split("/")
    if "" in segments[:-1]:
        raise Ambiguous("an empty segment")
    if "." in segments or ".." in segments:
        raise Ambiguous("a dot segment")
    _check_characters(normal)
    return normal


def decoded(text: str) -> str:
    """`text` without percent-encoding. Raises Ambiguous where that is malformed, or no UTF-8."""
    if "%" not in text:
        return text
    if text.count("%") != len(_ENCODED_BYTE.findall(text)):
        raise Ambiguous("a percent sign without two digits")
    raw = re.sub(
        rb"%([0-9A-Fa-f]{2})", lambda match: bytes.fromhex(match[1].decode()), text.encode("utf-8", "surrogatepass")
    )
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise Ambiguous("percent-encoding that is not UTF-8") from None


def parameters(target: str) -> list[tuple[str, str]]:
    """Name and value of each parameter of the query, in order, decoded as forms are (`+` is a space)."""
    query = target.partition("?")[2]
    pairs = (part.partition("=") for part in query.split("&") if part)
    return [(decoded(name.replace("+", " ")), decoded(value.replace("+", " "))) for name, _, value in pairs]


def _unescaped(match: re.Match[str]) -> str:
    digits = match[1]
    if digits is None:
        raise Ambiguous("a percent sign without two digits")
    value = int(digits, 16)
    if value in _UNRESERVED:
        return chr(value)
    if value in _DIVIDING:
        raise Ambiguous(f"an encoded {_DIVIDING[value]}")
    if value < 0x20 or value == 0x7F:
        raise Ambiguous("an encoded control character")
    after = match.string[match.end() : match.end() + 2]
    if value == ord("%") and len(after) == 2 and _HEXADECIMAL.issuperset(after):
        raise Ambiguous("encoded twice")
    return f"%{digits.upper()}"


def _check_characters(normal: str) -> None:
    """Beyond ASCII: valid UTF-8 only, without characters that some reader folds into a divider (as a fullwidth dot)."""
    if normal.count("%") == 0:
        return
    for character in decoded(normal):
        if character.isascii():
            continue
        folded = unicodedata.normalize("NFKC", character)
        if unicodedata.category(character).startswith("C") or not _DIVIDERS.isdisjoint(folded):
            raise Ambiguous("a character that may be read as another one")
