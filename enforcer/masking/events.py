"""Step 4 of 6, inspect: masks server-sent events as they stream, each as soon as its blank line has come.

Gets pieces of an event stream (WHATWG HTML, section 9.2), cut at any byte; hands on whole events. The data of an event,
joined over its lines, is masked as the one text that the client reads; everything else stays as it was written.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class Event:
    """One event as it came, its blank line included. `data`: its lines of data, joined as the client gets them; None
    where it has none."""

    raw: bytes
    lines: list[tuple[bytes, bytes]]
    data: bytes | None

    def written(self, data: bytes) -> bytes:
        """The event with other data."""
        return self.rewritten(data, lambda line: line)

    def rewritten(self, data: bytes | None, line: Callable[[bytes], bytes]) -> bytes:
        """With other data, and all other lines through `line`."""
        written: list[bytes] = []
        replaced = data == self.data
        for text, end in self.lines:
            if not _is_data(text):
                written.append(line(text) + end)
            elif data is None or data == self.data:
                written.append(text + end)
            elif not replaced:
                replaced = True
                last = [other for one, other in self.lines if _is_data(one)][-1]
                written += [(end or b"\n").join(b"data: " + part for part in data.split(b"\n")), last]
        return b"".join(written)


class Splitter:
    """An event stream, cut into events."""

    def __init__(self) -> None:
        self._held = b""
        self._searched = 0
        self._begun = False
        self._after_cr = False

    def feed(self, data: bytes, final: bool) -> list[Event]:
        held, out = self._held + data, list[Event]()
        if self._after_cr and held:
            self._after_cr = False
            if held[:1] == b"\n":  # the second half of a line end whose event is gone
                out.append(_BARE)
                held = held[1:]
        at, search = 0, self._searched
        while (blank := _BLANK.search(held, search)) is not None:
            out.append(self._event(held[at : blank.end()]))
            at = search = blank.end()
            if at == len(held) and held[-1:] == b"\r":
                self._after_cr = True
            elif held[at - 1 : at + 1] == b"\r\n":
                out.append(_BARE)
                at = search = at + 1
        held = held[at:]
        if len(held) > EVENT_LIMIT:
            raise MaskError(f"an event of more than {EVENT_LIMIT >> 20} MiB cannot be masked")
        if final:
            if held:  # clients drop an event without its end; whoever reads the stream otherwise does not
                out.append(self._event(held))
            self._held, self._searched, self._begun, self._after_cr = b"", 0, False, False
        else:
            self._held, self._searched = held, max(0, len(held) - 2)
        return out

    def _event(self, text: bytes) -> Event:
        lines = [(match[1], match[2]) for match in _LINE.finditer(text) if match[0]]
        if not self._begun:
            self._begun = True
            if lines and lines[0][0].startswith(_BOM):  # a mark is no part of the first line
                lines[:1] = [(_BOM, b""), (lines[0][0][len(_BOM) :], lines[0][1])]
        values = [_value(line) for line, _ in lines if _is_data(line)]
        return Event(text, lines, b"\n".join(values) if values else None)


class Events:
    """One event stream. `data` masks what a client's handler gets, `line` all other lines."""

    def __init__(self, data: Piece, line: Piece) -> None:
        self._data = data
        self._line = line
        self._splitter = Splitter()

    def feed(self, data: bytes, final: bool, counts: Counter[str]) -> bytes:
        return b"".join([self._masked(event, counts) for event in self._splitter.feed(data, final)])

    def _masked(self, event: Event, counts: Counter[str]) -> bytes:
        masked = None if event.data is None else self._data(event.data, counts)
        return event.rewritten(masked, lambda line: self._line(line, counts))


def _is_data(line: bytes) -> bool:
    return line == b"data" or line.startswith(b"data:")


def _value(line: bytes) -> bytes:
    value = line[len(b"data:") :]
    return value[1:] if value[:1] == b" " else value


_BARE: Final = Event(b"\n", [(b"", b"\n")], None)
