"""Step 4 of 6, inspect: the character sets in which every byte below 0x80 is that ASCII character.

Gets collation numbers and statements; says whether what is written in them can be read and scanned. In the others
(big5, sjis, gbk, cp932, gb18030, UCS-2, UTF-16, UTF-32) a quote or a backslash can be half of another character, which
would mislead whoever reads the bytes. Source: information_schema.collations of MySQL 8.4 and MariaDB 10.11.
"""

from __future__ import annotations

import re
from typing import Final

_UNREAD: Final = frozenset(
    {
        *(1, 84),  # big5
        *(13, 88),  # sjis
        *(28, 87),  # gbk
        *(95, 96),  # cp932
        *(248, 249, 250),  # gb18030 (MySQL)
        *(35, 54, 55, 56, 60, 61, 62, 90, 159),  # ucs2, utf16, utf16le, utf32
        *range(101, 125),  # utf16
        *range(128, 152),  # ucs2
        *range(160, 184),  # utf32
        *(640, 641, 642, 672, 673, 674, 736, 737, 738),  # MariaDB's further ones of ucs2, utf16, utf32
    }
)
_NOPAD: Final = 1024
"""MariaDB's collations without padding have numbers so much higher."""
_LATER: Final = 2560
"""MariaDB's UCA 14.0 collations: utf8mb3 and utf8mb4 below, ucs2, utf16 and utf32 from here on. None are higher."""

_ABOUT: Final = (b"names", b"character", b"charset", b"cs_client")
"""A statement with none of these words in it sets no character set."""

# All on lower case, and linear: what is not closed or found takes the rest with it, and is not looked at again.
_COMMENT: Final = re.compile(rb"(?s)/\*(?!m?!)(?:.*?\*/|.*)|(?:#|--\s)[^\n]*")
_EXECUTED: Final = re.compile(rb"/\*m?!\d*|\*/")
_WORD: Final = rb"[`'\"]?(?:big5|sjis|gbk|cp932|gb18030|ucs2|utf16(?:le)?|utf32)"
_UNREAD_SET: Final = re.compile(
    rb"\bnames\s*" + _WORD + rb"|(?:\bset|,)\s+(?:character\s+set|charset)\s*" + _WORD + rb"|"
    rb"\bcharacter_set_client`?\s*:?=\s*" + _WORD
)  # fmt: skip
_FROM: Final = re.compile(rb"\bcharacter_set_client`?\s*:?=\s*(?!\s|@@)([^,;\s]+)")
_SAVED: Final = rb"@`?(?:old_character_set_client|saved_cs_client)`?"
"""Where dumps keep the character set that was set before."""
_SAVES: Final = re.compile(_SAVED + rb"\s*:?=\s*(?!\s|@@character_set_client\b)")
_PLAIN: Final = re.compile(rb"[`'\"]?\w+[`'\"]?|" + _SAVED)


def is_read(collation: int) -> bool:
    """Can text in this collation's character set be scanned byte by byte?"""
    base = collation - _NOPAD if _NOPAD < collation < 2 * _NOPAD else collation
    return base not in _UNREAD and collation < _LATER


def fault_of(statement: bytes) -> str:
    """Why a statement that changes the character set of the client must not pass; empty for every other. With comments
    left out, and with all that may be one left in: who reads quotes otherwise finds one of both."""
    lower = statement.lower()
    if not any(word in lower for word in _ABOUT):
        return ""
    for text in (_COMMENT.sub(b" ", lower), lower):
        said = _EXECUTED.sub(b" ", text)
        if _UNREAD_SET.search(said):
            return "it sets a character set in which statements cannot be read; use utf8mb4"
        if _SAVES.search(said) or not all(map(_PLAIN.fullmatch, _FROM.findall(said))):
            return "it sets the client's character set from what is not its name; name it"
    return ""
