"""Step 4 of 6, inspect: what a session keeps of an allowed request until its answer is complete."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field

from enforcer.flow import Side
from enforcer.masking.answers import Answers, Messages
from enforcer.masking.deltas import Waiting, waiting_of
from enforcer.masking.errors import MaskError
from enforcer.masking.masker import Masker
from enforcer.masking.text import TextMask
from enforcer.protocols.base import CellRewrite, Part, Request, Rewrite, Text


class RequestMask(CellRewrite):
    """Hides values in requests, and counts them."""

    def __init__(self, masker: Masker, masked: Counter[str]) -> None:
        self._masker = masker
        self._masked = masked

    def __call__(self, data: bytes) -> bytes:
        return self._masker.mask(data, self._masked)

    def cells(
        self, columns: tuple[str, ...], values: list[bytes | None], binary: tuple[bool, ...]
    ) -> list[bytes | None] | None:
        return self._masker.rows(columns, values, binary, self._masked)


@dataclass(slots=True)
class Exchange:
    """`masker` and `request_masker`: for its answer and for what it asks, where the rule masks. `bytes_up` and
    `bytes_down`: what the session had moved when it began. `masked`: values hidden so far, by name. `_texts`: those
    of either side that are being masked. `_held`: messages of the answer that wait for those behind them."""

    request: Request
    masker: Masker | None
    request_masker: Masker | None
    started_ns: int
    bytes_up: int
    bytes_down: int
    masked: Counter[str] = field(default_factory=Counter)
    _broken: MaskError | None = None
    _texts: dict[Side, TextMask] = field(default_factory=dict)
    _waiting: Waiting | None = None
    _messages: Messages | None = None
    _held: deque[Text] = field(default_factory=deque)

    @property
    def rewrite(self) -> Rewrite | None:
        """Hides values in the texts of the request itself; None where nothing is masked in it."""
        return None if self.request_masker is None else RequestMask(self.request_masker, self.masked)

    def name_fields(self) -> None:
        """Tells the inspector, by the request, what is masked for its name."""
        requests, answers, masked = self.request_masker, self.masker, self.masked
        if requests is not None and requests.names_fields:
            self.request.replaced = lambda kind, name, value: requests.replaced(kind, name, value, masked)
        if answers is not None and answers.names_fields:
            self.request.answered, self.request.clean = self._answered, answers.clean

    def _answered(self, name: str, value: bytes) -> bytes:
        """A field of the answer. One that cannot be masked is left empty, and what follows is refused."""
        if self.masker is None or self._broken is not None:
            return b""
        try:
            return self.masker.field(name, value, self.masked)
        except MaskError as error:
            self._broken = error
            return b""

    def mask(self, text: Text) -> list[tuple[Text, bytes | None]]:
        """What may go on now of the texts of either side, with what becomes of each; None where nothing is masked in
        it. Raises MaskError."""
        if self._broken is not None:
            raise self._broken
        side = text.side
        masker = self.masker if side is Side.SERVER else self.request_masker
        if masker is None:
            return [(text, None)]
        if text.part is Part.MESSAGE and isinstance(masker, Answers):
            if self._messages is None:
                self._messages = masker.messages()
            self._held.append(text)
            return self._let_go(self._messages.take(text.media, text.data, self.masked))
        before = self.remaining() if text.part is Part.PIECE else []
        mask = self._texts.get(side)
        if mask is None:
            mask = self._texts[side] = masker.text(text.media)
            if side is Side.SERVER and not text.final:
                self._waiting = waiting_of(mask)
        data = mask.feed(text.data, text.final, self.masked)
        if text.final:
            del self._texts[side]
        return [*before, (text, data)]

    @property
    def patience(self) -> float:
        """Seconds after which `release` is due, if nothing more is answered; 0 where nothing waits for more."""
        if self._messages is not None:
            return self._messages.patience
        return 0 if self._waiting is None else self._waiting.patience

    def release(self) -> list[tuple[Text, bytes | None]]:
        """What waits for more of the answer, as it is. Raises MaskError."""
        if self._waiting is None or not self._waiting.patience:
            return self.remaining()
        return [(Text(self.request.exchange, "", b"", False, b""), self._waiting.release())]

    def remaining(self) -> list[tuple[Text, bytes | None]]:
        """The messages that wait: none follows. Raises MaskError."""
        return [] if self._messages is None else self._let_go(self._messages.release())

    def _let_go(self, messages: list[bytes]) -> list[tuple[Text, bytes | None]]:
        return [(self._held.popleft(), data) for data in messages]
