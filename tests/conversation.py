"""A scripted dialogue with one inspector, read top to bottom like the conversation on the wire.

    with Conversation(PROTOCOL.inspector()) as talk:
        talk.client_sends(b"GET / HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n")
        talk.expect_request("GET", "GET /")
        talk.expect_upstream(b"GET / HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n")
        talk.server_sends(...)
        talk.expect_client(...)
        talk.expect_outcome("200")

It plays the session: takes events, decides, masks, and collects what goes to either end. A mismatch prints the whole
dialogue, and so does anything left unexpected when the `with` block ends.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import TracebackType
from typing import Self

from enforcer.errors import ProtocolError, Unwritable
from enforcer.flow import Side
from enforcer.protocols.base import (
    Event,
    Forward,
    Inspector,
    Outcome,
    Reply,
    Request,
    Rewrite,
    Rows,
    StartTls,
    Switched,
    Text,
    TlsOffer,
    Unmaskable,
)
from enforcer.verdict import Denial

DENIAL = Denial(
    destination="8.8.8.8:80",
    region="US",
    prefix="8.8.8.0/24",
    policy="eu-only",
    rule="everything-else",
    reason="rule eu-only/everything-else forbids region US",
    session="0a1b",
)

Decide = Callable[[Request], Denial | None]


class Conversation:
    """Plays the session for `inspector`. `decide` returns the denial of a request or None to allow it; `mask_text` and
    `mask_rows` return what to put in place of a Text's data or a row's cells, and having either means "masked".
    `rewrite` does the same for what requests say, `rewrite_text` for the client's Texts. `switched`: the last one.
    `tls`: TLS is taken up where it can be; `start_tls` is the event, after which both ends send what is inside. `quiet`
    keeps no dialogue (for real peers and megabytes)."""

    def __init__(
        self,
        inspector: Inspector,
        decide: Decide | None = None,
        mask_text: Callable[[Text], bytes] | None = None,
        mask_rows: Callable[[Rows], list[bytes | None]] | None = None,
        rewrite: Rewrite | None = None,
        rewrite_text: Callable[[Text], bytes] | None = None,
        quiet: bool = False,
        tls: bool = False,
    ) -> None:
        self.inspector = inspector
        self.closed = False
        self.texts: list[Text] = []
        self._decide = decide
        self._mask_text = mask_text
        self._mask_rows = mask_rows
        self._rewrite = rewrite
        self._rewrite_text = rewrite_text or (lambda text: text.data)
        self.switched: Switched | None = None
        self._quiet = quiet
        self._tls = tls
        self.start_tls: StartTls | None = None
        self._log: list[str] = []
        self._to_client = b""
        self._to_upstream = b""
        self.requests: list[Request] = []
        self.outcomes: list[Outcome] = []
        self._errors: list[ProtocolError] = []
        self._allowed: dict[int, Request] = {}

    # --- what the ends do

    def client_sends(self, data: bytes) -> None:
        self._step("client sends", data, lambda: self.inspector.receive_data(Side.CLIENT, data))

    def server_sends(self, data: bytes) -> None:
        self._step("server sends", data, lambda: self.inspector.receive_data(Side.SERVER, data))

    def client_closes(self) -> None:
        self._step("client closes", b"", lambda: self.inspector.receive_eof(Side.CLIENT))

    def server_closes(self) -> None:
        self._step("server closes", b"", lambda: self.inspector.receive_eof(Side.SERVER))

    # --- what must come of it

    def expect_client(self, data: bytes) -> None:
        """Everything written to the client since the last time is exactly `data`."""
        got, self._to_client = self._to_client, b""
        self._check(got == data, f"expected to client:   {data!r}\n         but got:   {got!r}")

    def expect_upstream(self, data: bytes) -> None:
        """Everything written upstream since the last time is exactly `data`."""
        got, self._to_upstream = self._to_upstream, b""
        self._check(got == data, f"expected upstream:    {data!r}\n         but got:   {got!r}")

    def expect_request(
        self, operation: str, text: str | None = None, params: tuple[str | None, ...] = (), **facts: str
    ) -> Request:
        """The next request put to policy. `text` None: any. Only the facts named are compared."""
        self._check(bool(self.requests), f"expected a request {operation}, but there was none")
        request = self.requests.pop(0)
        self._check(request.operation == operation, f"expected operation {operation!r}, got {request.operation!r}")
        self._check(text is None or request.text == text, f"expected text {text!r}, got {request.text!r}")
        self._check(request.params == params, f"expected params {params!r}, got {request.params!r}")
        for name, value in facts.items():
            got = request.facts.get(name)
            self._check(got == value, f"expected fact {name}={value!r}, got {got!r}")
        return request

    def expect_outcome(self, status: str, rows: int | None = None, failed: bool = False) -> None:
        self._check(bool(self.outcomes), f"expected outcome {status}, but there was none")
        got = self.outcomes.pop(0)
        told = (got.status, got.rows, got.failed)
        self._check(told == (status, rows, failed), f"expected outcome {(status, rows, failed)}, got {told}")

    def expect_error(self, side: Side, words: str = "") -> ProtocolError:
        """A ProtocolError of `side` ended the flow; its reason holds `words`."""
        self._check(bool(self._errors), f"expected a protocol error of the {side.value}, but there was none")
        error = self._errors.pop(0)
        self._check(error.side is side and words in error.reason, f"expected {side.value}: ...{words}..., got {error}")
        return error

    def take_client(self) -> bytes:
        """What was written to the client since the last time, for a closer look than equality."""
        got, self._to_client = self._to_client, b""
        return got

    def take_upstream(self) -> bytes:
        got, self._to_upstream = self._to_upstream, b""
        return got

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._check(not self._to_client, f"unexpected to client: {self._to_client!r}")
            self._check(not self._to_upstream, f"unexpected upstream:  {self._to_upstream!r}")
            self._check(not self.requests, f"unexpected requests:  {self.requests!r}")
            self._check(not self.outcomes, f"unexpected outcomes:  {self.outcomes!r}")
            self._check(not self._errors, f"unexpected errors:    {self._errors!r}")

    # --- the session's part

    def _step(self, what: str, data: bytes, act: Callable[[], None]) -> None:
        self._note(f"{what}: {data!r}" if data else what)
        if self.closed:
            return
        try:
            act()
            while not self.closed and (event := self.inspector.next_event()) is not None:
                self._note(f"    event: {event!r}")
                self._take(event)
        except ProtocolError as error:
            self._note(f"    error: {error}")
            self._errors.append(error)
            self._write_client(self.inspector.refuse(None, DENIAL).to_client)
            self.closed = True

    def _take(self, event: Event) -> None:
        match event:
            case Request():
                self.requests.append(event)
                self._judge(event)
            case Forward(side=Side.CLIENT):
                self._write_upstream(event.raw)
            case Forward() | Reply():
                self._write_client(event.raw)
            case Text(side=Side.CLIENT):
                self.texts.append(event)
                self._write_upstream(self.inspector.encode_text(event, self._rewrite_text(event)))
            case Text():
                self.texts.append(event)
                masked = event.data if self._mask_text is None else self._mask_text(event)
                self._write_client(self.inspector.encode_text(event, masked))
            case Rows():
                cells = event.values if self._mask_rows is None else self._mask_rows(event)
                self._write_client(self.inspector.encode_row(event, cells))
            case Unmaskable():
                self._refuse(self._allowed[event.exchange])
            case Outcome():
                self.outcomes.append(event)
            case Switched():
                self._switch(event)
            case TlsOffer():
                self._write_client(event.accept if self._tls else event.decline)
            case StartTls():
                self.start_tls = event
                self._write_client(event.accept if self._tls else event.decline)

    def _switch(self, event: Switched) -> None:
        self.switched = event
        if event.inspector is None:
            self.closed = True  # what follows is no longer this inspector's
            return
        self.inspector = event.inspector
        for side, data in ((Side.CLIENT, event.client), (Side.SERVER, event.server)):
            if data:
                self.inspector.receive_data(side, data)

    def _judge(self, request: Request) -> None:
        denial = None if self._decide is None else self._decide(request)
        if denial is not None:
            self._refuse(request, denial)
            return
        self._allowed[request.exchange] = request
        masked = self._mask_text is not None or self._mask_rows is not None
        try:
            self._write_upstream(self.inspector.allow(request, masked=masked, rewrite=self._rewrite))
        except Unwritable as error:
            self._refuse(request, replace(DENIAL, reason=str(error)))

    def _refuse(self, request: Request, denial: Denial = DENIAL) -> None:
        refusal = self.inspector.refuse(request, denial)
        self._write_client(refusal.to_client)
        self.closed = refusal.close
        self._note(f"    refused exchange {request.exchange}, close={refusal.close}")

    def _write_client(self, data: bytes) -> None:
        if data:
            self._note(f"    to client: {data!r}")
            self._to_client += data

    def _write_upstream(self, data: bytes) -> None:
        if data:
            self._note(f"    upstream: {data!r}")
            self._to_upstream += data

    def _note(self, line: str) -> None:
        if not self._quiet:
            self._log.append(line)

    def _check(self, holds: bool, complaint: str) -> None:
        if not holds:
            raise AssertionError("\n".join([complaint, "", "the dialogue so far:", *self._log]))
