"""Step 4 of 6, inspect: answers in which pseudonyms are taken back, after whatever is masked in them.

Gets what answers a request whose values went out as pseudonyms; hands on the same, masked as the rule says, with the
values where the pseudonyms stand.
"""

from __future__ import annotations

import re
from collections import Counter
from itertools import cycle
from typing import Final

from enforcer.masking.deltas import Deltas, RestoredEvents, RestoredLines
from enforcer.masking.masker import Kind, Masker, kind_of
from enforcer.masking.pseudonyms import Pseudonymiser
from enforcer.masking.restore import Chain, Restored, RestoredJson, RestoredUnsure, in_address, in_markup
from enforcer.masking.text import TextMask, Untouched
from enforcer.verdict import MaskSpec

# Fields whose values are addresses.
_ADDRESSES = frozenset({"location", "content-location", "link", "refresh"})
# An address of mail that is a pseudonym, as addresses of the web have it.
_MAIL: Final = re.compile(rb"(user[0-9]{1,9})%40(example\.invalid)", re.IGNORECASE)
# Types under which programs send JSON without saying so.
_UNSURE = frozenset({"", "text/plain"})


class Messages:
    """Messages that follow each other, each masked for itself; pseudonyms are put together over them. Those that say
    something wait as documents do, and all others behind them."""

    def __init__(self, masker: Masker | None, pseudonyms: Pseudonymiser) -> None:
        self._masker = masker
        self._deltas = Deltas(pseudonyms)

    @property
    def patience(self) -> float:
        """See `Deltas`."""
        return self._deltas.patience

    def take(self, media: str, data: bytes, counts: Counter[str]) -> list[bytes]:
        """The messages that may go on now that one has come. Raises MaskError."""
        if self._masker is not None:
            data = self._masker.text(media).feed(data, True, counts)
        return self._deltas.take(data, data if data and kind_of(media) is not Kind.PACKED else None, _itself)

    def release(self) -> list[bytes]:
        """Those that wait."""
        return self._deltas.release()


def _itself(text: bytes) -> bytes:
    return text


class Answers(Masker):
    """Takes the pseudonyms of `pseudonyms` back; `masker` masks before, where the rule asks for that."""

    def __init__(self, masker: Masker | None, pseudonyms: Pseudonymiser) -> None:
        super().__init__(MaskSpec())
        self.operated = True
        self.names_fields = True
        self.clean = None
        self._masker = masker
        self._pseudonyms = pseudonyms

    def rows(
        self,
        columns: tuple[str, ...],
        values: list[bytes | None],
        binary: tuple[bool, ...],
        counts: Counter[str],
        *,
        strings: tuple[bool, ...] = (),
    ) -> list[bytes | None] | None:
        masker = self._masker
        masked = None if masker is None else masker.rows(columns, values, binary, counts, strings=strings)
        cells = values if masked is None else masked
        restored = [
            cell if cell is None or packed else self._pseudonyms.restored(cell)
            for cell, packed in zip(cells, cycle(binary), strict=False)
        ]
        return None if restored == values else restored

    def text(self, media: str) -> TextMask:
        first = None if self._masker is None else self._masker.text(media)
        second = self._restored(media)
        return second if first is None or isinstance(first, Untouched) else Chain(first, second)

    def messages(self) -> Messages:
        return Messages(self._masker, self._pseudonyms)

    def field(self, name: str, value: bytes, counts: Counter[str]) -> bytes:
        masked = value if self._masker is None else self._masker.field(name, value, counts)
        if name.lower() in _ADDRESSES:
            return self._pseudonyms.restored(_MAIL.sub(rb"\1@\2", masked), lambda one, _place: in_address(one))
        return self._pseudonyms.restored(masked)

    def _restored(self, media: str) -> TextMask:
        match kind_of(media):
            case Kind.PACKED:
                return Untouched()
            case Kind.JSON:
                return RestoredJson(self._pseudonyms)
            case Kind.LINES:
                return RestoredLines(self._pseudonyms)
            case Kind.EVENTS:
                return RestoredEvents(self._pseudonyms)
            case Kind.FORM:
                return Restored(self._pseudonyms, in_address)
            case Kind.TEXT if media in _UNSURE:
                return RestoredUnsure(self._pseudonyms)
            case _:
                return Restored(self._pseudonyms, in_markup if "html" in media or "xml" in media else None)
