"""Step 4 of 6, inspect: masks server-sent events as they stream, each as soon as its blank line has come.

Gets pieces of an event stream (WHATWG HTML, section 9.2), cut at any byte; hands on whole events. The data of an event,
joined over its lines, is masked as the one text that the client reads; everything else stays as it was written.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Final

from enforcer.masking.errors import MaskError
from enforcer.masking.form import Piece

EVENT_LIMIT: Final = 1 << 20
"""Bytes of one event. What streams answers sends tokens; browsers have no limit, servers rarely exceed 64 KiB."""

_LINE_END: Final = rb"(?:\r\n|\n|\r)"
# A line's end, and a line that is empty. CR before LF is half a line end.
_BLANK: Final = re.compile(rb"(?:\r\n|\n|\r(?!\n))" + _LINE_END)
_LINE: Final = re.compile(rb"([^\r\n]*)(\r\n|\n|\r|\Z)")
_BOM: Final = b"\xef\xbb\xbf"


class Events:
    """One event stream. `data` masks what a client's handler gets, `line` all other lines."""

    def __init__(self, data: Piece, line: Piece) -> None:
        self._data = data
        self._line = line
        self._held = b""
        self._searched = 0
        self._begun = False
        self._after_cr = False

    def feed(self, data: bytes, final: bool, counts: Counter[str]) -> bytes:
        held, out = self._held + data, []
        if self._after_cr and held:
            self._after_cr = False
            if held[:1] == b"\n":  # the second half of a line end whose event is gone
                out.append(b"\n")
                held = held[1:]
        at, search = 0, self._searched
        while (blank := _BLANK.search(held, search)) is not None:
            out.append(self._event(held[at : blank.end()], counts))
            at = search = blank.end()
            if at == len(held) and held[-1:] == b"\r":
                self._after_cr = True
            elif held[at - 1 : at + 1] == b"\r\n":
                out.append(b"\n")
                at = search = at + 1
        held = held[at:]
        if len(held) > EVENT_LIMIT:
            raise MaskError(f"an event of more than {EVENT_LIMIT >> 20} MiB cannot be masked")
        if final:
            if held:  # clients drop an event without its end; whoever reads the stream otherwise does not
                out.append(self._event(held, counts))
            self._held, self._searched, self._begun, self._after_cr = b"", 0, False, False
        else:
            self._held, self._searched = held, max(0, len(held) - 2)
        return b"".join(out)

    def _event(self, text: bytes, counts: Counter[str]) -> bytes:
        mark = b""
        if not self._begun:
            self._begun = True
            if text.startswith(_BOM):
                mark, text = _BOM, text[len(_BOM) :]
        lines = [match.groups() for match in _LINE.finditer(text) if match[0]]
        values = [_value(line) for line, _ in lines if _is_data(line)]
        data = b"\n".join(values)
        masked = self._data(data, counts) if values else data
        written, replaced = [mark], masked == data
        for line, end in lines:
            if not _is_data(line):
                written.append(self._line(line, counts) + end)
            elif masked == data:
                written.append(line + end)
            elif not replaced:
                replaced = True
                last = [other for one, other in lines if _is_data(one)][-1]
                written += [(end or b"\n").join(b"data: " + part for part in masked.split(b"\n")), last]
        return b"".join(written)


def _is_data(line: bytes) -> bool:
    return line == b"data" or line.startswith(b"data:")


def _value(line: bytes) -> bytes:
    value = line[len(b"data:") :]
    return value[1:] if value[:1] == b" " else value
