"""Step 4 of 6, inspect: the character sets in which every byte below 0x80 is that ASCII character.

Gets collation numbers and statements; says whether what is written in them can be read and scanned. In the others
(big5, sjis, gbk, cp932, gb18030, UCS-2, UTF-16, UTF-32) a quote or a backslash can be half of another character, which
would mislead whoever reads the bytes. Source: information_schema.collations of MySQL 8.4 and MariaDB 11.4.
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
        *(248, 249, 250),  # gb18030
        *(35, 90, 54, 55, 60, 61, 56, 62),  # ucs2, utf32, utf16, utf16le
        *range(101, 125),  # utf16
        *range(128, 152),  # ucs2
        *(159,),  # ucs2
        *range(160, 184),  # utf32
    }
)
_MARIADB_OWN: Final = range(576, 2048)
"""MariaDB's own numbers: its further collations of utf8, ucs2, utf16 and utf32, and those with NOPAD at 1024 more."""
_MARIADB_UTF8: Final = (range(576, 610), range(1056, 1063), range(1069, 1072), range(1206, 1240))

_SETS: Final = re.compile(
    rb"(?i)\bnames\b|\bcharacter[\s_]+set|\bcharset\b|\bcharacter_set_(?:client|results|connection)\b"
)
_UNREAD_NAMES: Final = re.compile(rb"(?i)\b(?:big5|sjis|gbk|cp932|gb18030|ucs2|utf16(?:le)?|utf32)(?:_\w+)?\b")
_FROM_VARIABLE: Final = re.compile(rb"(?i)character_set_client\s*:?=\s*(?!@@)@`?(\w+)")
_SAVED: Final = frozenset({b"old_character_set_client", b"saved_cs_client"})
"""Where dumps keep the character set that was set before."""
_SAVES: Final = re.compile(
    rb"(?i)@`?(?:old_character_set_client|saved_cs_client)`?\s*:?=\s*(?!@@character_set_client\b)"
)


def is_read(collation: int) -> bool:
    """Can text in this collation's character set be scanned byte by byte?"""
    base = collation - 1024 if 1024 < collation < 1024 + 256 else collation  # MariaDB's NOPAD ones
    if base in _UNREAD:
        return False
    return collation not in _MARIADB_OWN or any(collation in those for those in _MARIADB_UTF8) or collation < 1280


def fault_of(statement: bytes) -> str:
    """Why a statement that changes the character set of the client must not pass; empty for every other."""
    if not _SETS.search(statement):
        return ""
    if re.search(rb"(?i)\bset\b", statement) and _UNREAD_NAMES.search(statement):
        return "it sets a character set in which statements cannot be read; use utf8mb4"
    if any(name.lower() not in _SAVED for name in _FROM_VARIABLE.findall(statement)) or _SAVES.search(statement):
        return "it sets the client's character set from a variable; name the character set"
    return ""
