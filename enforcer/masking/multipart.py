"""Step 4 of 6, inspect: masks multipart bodies as they stream (RFC 2046 section 5.1), each part by its own type.

Gets pieces and the boundary; hands on the parts with their delimiters as they came. What two readers could divide
otherwise is refused: text around the parts, delimiters after a bare line feed, parts encoded once more.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from enum import Enum
from typing import Final
from urllib.parse import unquote_to_bytes

from enforcer.masking.errors import MaskError
from enforcer.masking.form import Piece
from enforcer.masking.text import TextMask
from enforcer.protocols.media import SNIFF, describe, wide_characters

HEAD_LIMIT: Final = 16 * 1024
"""Bytes of one part's head. Senders write two or three lines; Go's mime/multipart stops at 10 KiB."""

_PADDING_LIMIT: Final = 256
_PLAIN: Final = frozenset({b"", b"7bit", b"8bit", b"binary"})
_NAME: Final = re.compile(rb';[ \t]*name[ \t]*=[ \t]*(?:"([^"]*)"|([^;"\s]+))', re.IGNORECASE)
_HEADER: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\r\n\0]*)")


class _State(Enum):
    START = "before the first delimiter"
    DELIMITER = "after a boundary, on its line"
    HEAD = "in a part's head"
    BODY = "in a part"
    END = "after the last delimiter"


class Multipart:
    """One multipart body. `pick` gives the mask for a part's type, `line` masks values of its head, and `named` gives
    the mask for the part of a form that is named so, None for one that is masked as what it is."""

    def __init__(
        self,
        boundary: bytes,
        pick: Callable[[str], TextMask],
        line: Piece,
        named: Callable[[str], TextMask | None] = lambda _name: None,
    ) -> None:
        self._boundary = b"--" + boundary
        self._delimiter = b"\r\n--" + boundary
        self._pick = pick
        self._named = named
        self._line = line
        self._begin()

    def _begin(self) -> None:
        self._state = _State.START
        self._held = b""
        self._first = b""
        self._media = ""
        self._sniffed = False
        self._mask: TextMask | None = None

    def feed(self, data: bytes, final: bool, counts: Counter[str]) -> bytes:
        self._held += data
        out: list[bytes] = []
        while self._step(final, counts, out):
            pass
        if final:
            if self._state is not _State.END:
                raise MaskError("a multipart body ends before its last boundary")
            self._begin()
        return b"".join(out)

    def _step(self, final: bool, counts: Counter[str], out: list[bytes]) -> bool:
        """Goes one part of the grammar on; False where more bytes are needed."""
        if self._state is _State.START:
            return self._start(out)
        if self._state is _State.DELIMITER:
            return self._delimiter_line(final, out)
        if self._state is _State.HEAD:
            return self._head(counts, out)
        if self._state is _State.BODY:
            return self._body(counts, out)
        if self._held.strip(b"\r\n"):
            raise MaskError("text after the last part of a multipart body")
        out.append(self._held)
        self._held = b""
        return False

    def _start(self, out: list[bytes]) -> bool:
        held, lead = self._held, b""
        if held[:1] == b"\r":
            held, lead = held[2:], held[:2]
        if len(held) < len(self._boundary) and self._boundary.startswith(held) and b"\r\n".startswith(lead):
            return False
        if lead not in (b"", b"\r\n") or not held.startswith(self._boundary):
            raise MaskError("a multipart body does not begin with its boundary")
        return self._pass(lead + self._boundary, _State.DELIMITER, out)

    def _delimiter_line(self, final: bool, out: list[bytes]) -> bool:
        end = self._held.find(b"\r\n", 0, _PADDING_LIMIT)
        line = self._held if end < 0 else self._held[:end]
        closing = line.startswith(b"--")
        if end < 0 and not (final and closing):
            if len(self._held) >= _PADDING_LIMIT or (line.strip(b" \t\r") not in (b"", b"-", b"--")):
                raise MaskError("a line of a multipart body that begins like its boundary")
            return False
        if line.removeprefix(b"--").strip(b" \t"):
            raise MaskError("a line of a multipart body that begins like its boundary")
        return self._pass(line if end < 0 else line + b"\r\n", _State.END if closing else _State.HEAD, out)

    def _pass(self, raw: bytes, state: _State, out: list[bytes]) -> bool:
        out.append(raw)
        self._held = self._held[len(raw) :]
        self._state = state
        return True

    def _head(self, counts: Counter[str], out: list[bytes]) -> bool:
        held = self._held
        end = 0 if held.startswith(b"\r\n") else held.find(b"\r\n\r\n", 0, HEAD_LIMIT)
        if end < 0:
            if len(held) >= HEAD_LIMIT:
                raise MaskError(f"a part of a multipart body has a head of more than {HEAD_LIMIT} bytes")
            return False
        found: dict[bytes, list[bytes]] = {}
        for line in held[:end].split(b"\r\n") if end else ():
            header = _HEADER.fullmatch(line)
            if header is None:
                raise MaskError("a part of a multipart body has a line in its head that is none")
            name, value = header[1].lower(), header[2].strip(b" \t")
            found.setdefault(name, []).append(value)
            if name != b"content-length":  # it may become another
                out.append(line if name == b"content-type" else self._header(line, value, counts))
                out.append(b"\r\n")
        out.append(b"\r\n")
        self._held = held[end + 4 :] if end else held[2:]
        self._begin_part(found)
        self._state = _State.BODY
        return True

    def _header(self, line: bytes, value: bytes, counts: Counter[str]) -> bytes:
        if b"%" in value:  # filename* of RFC 8187
            plain = unquote_to_bytes(value)
            if self._line(plain, Counter()) != plain:
                raise MaskError("a part's name holds a value that is to be masked, in percent-encoding")
        return self._line(line, counts)

    def _begin_part(self, found: dict[bytes, list[bytes]]) -> None:
        description = describe(tuple(found.get(b"content-type", ())), tuple(found.get(b"content-encoding", ())))
        if description.unmaskable or description.codings:
            raise MaskError(f"a part of a multipart body: {description.unmaskable or 'it is compressed'}")
        if any(value.lower() not in _PLAIN for value in found.get(b"content-transfer-encoding", ())):
            raise MaskError("a part of a multipart body: it is encoded for mail")
        if description.media.startswith("multipart/"):
            raise MaskError("a multipart body inside another one")
        self._media = description.media or "text/plain"
        said = b"".join(found.get(b"content-disposition", ()))
        name = _NAME.search(said)
        by_name = None if name is None else self._named((name[1] or name[2]).decode("utf-8", "replace"))
        self._mask = by_name or self._pick(self._media)
        self._first, self._sniffed = b"", False

    def _body(self, counts: Counter[str], out: list[bytes]) -> bool:
        held = self._held
        if not self._first and not self._sniffed and held.startswith(self._boundary):
            raise MaskError("a line of a multipart body that begins like its boundary")
        end = held.find(self._delimiter)
        known = end if end >= 0 else max(0, len(held) - len(self._delimiter) + 1)
        near = held.find(self._delimiter[1:], 0, end if end >= 0 else len(held))
        if near >= 0:
            raise MaskError("a boundary of a multipart body after a bare line feed")
        self._held = held[known:]
        self._take(held[:known], end >= 0, counts, out)
        if end < 0:
            return False
        return self._pass(self._delimiter, _State.DELIMITER, out)

    def _take(self, data: bytes, last: bool, counts: Counter[str], out: list[bytes]) -> None:
        if self._mask is None:
            raise MaskError("a multipart body outside of its parts")
        if not self._sniffed:
            self._first += data
            if len(self._first) < SNIFF and not last:
                return
            data, self._sniffed = self._first, True
            if wide_characters(self._media, data):
                raise MaskError("a part of a multipart body is in UTF-16 or UTF-32")
        if data or last:
            out.append(self._mask.feed(data, last, counts))
