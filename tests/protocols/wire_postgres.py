"""PostgreSQL messages as the documentation's "Message Formats" lays them out, and a session that drives an inspector.

Written apart from the parser under test, so that the two can disagree.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from enforcer.flow import Side
from enforcer.protocols.base import Event, Forward, Inspector, Refusal, Reply, Request, Rows, StartTls, Text
from enforcer.verdict import Denial

CORPUS = Path(__file__).parent.parent / "corpora" / "postgres"
C, S = Side.CLIENT, Side.SERVER

DENIAL = Denial(
    destination="8.8.8.8:5432",
    region="US",
    prefix="8.8.8.0/24",
    policy="eu-only",
    rule="everything-else",
    reason="a rule matched",
    session="0a1b",
)


def msg(code: str, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return code.encode() + struct.pack(">i", len(body) + 4) + body


def z(text: str) -> bytes:
    return text.encode() + b"\0"


def i16(*numbers: int) -> bytes:
    return struct.pack(f">{len(numbers)}h", *numbers)


def i32(number: int) -> bytes:
    return struct.pack(">i", number)


def startup(code: int = 196608, **parameters: str) -> bytes:
    body = b"".join(z(key) + z(value) for key, value in parameters.items()) + b"\0"
    return struct.pack(">ii", len(body) + 8, code) + body


def query(sql: str) -> bytes:
    return msg("Q", z(sql))


def parse(sql: str, name: str = "", *oids: int) -> bytes:
    return msg("P", z(name), z(sql), i16(len(oids)), b"".join(i32(oid) for oid in oids))


def values(*cells: bytes | None) -> bytes:
    return i16(len(cells)) + b"".join(i32(-1) if c is None else i32(len(c)) + c for c in cells)


def bind(
    *cells: bytes | None,
    statement: str = "",
    portal: str = "",
    formats: tuple[int, ...] = (),
    results: tuple[int, ...] = (),
) -> bytes:
    codes = i16(len(formats), *formats)
    return msg("B", z(portal), z(statement), codes, values(*cells), i16(len(results), *results))


def execute(portal: str = "", rows: int = 0) -> bytes:
    return msg("E", z(portal), i32(rows))


def describe(kind: str, name: str = "") -> bytes:
    return msg("D", kind.encode(), z(name))


def close(kind: str, name: str = "") -> bytes:
    return msg("C", kind.encode(), z(name))


def function_call(oid: int, *cells: bytes | None, formats: tuple[int, ...] = (), result: int = 0) -> bytes:
    return msg("F", i32(oid), i16(len(formats), *formats), values(*cells), i16(result))


SYNC = msg("S")
FLUSH = msg("H")
TERMINATE = msg("X")
SSL_REQUEST = struct.pack(">ii", 8, 80877103)
GSS_REQUEST = struct.pack(">ii", 8, 80877104)
CANCEL_REQUEST = struct.pack(">iiii", 16, 80877102, 7, 9)
AUTH_OK = msg("R", i32(0))
PARSED, BOUND, CLOSED, NO_DATA, SUSPENDED = msg("1"), msg("2"), msg("3"), msg("n"), msg("s")


def ready(status: str = "I") -> bytes:
    return msg("Z", status.encode())


def columns(*names: str, oid: int = 25, code: int = 0) -> bytes:
    fields = (z(name) + struct.pack(">ihihih", 0, 0, oid, -1, -1, code) for name in names)
    return msg("T", i16(len(names)), *fields)


def row(*cells: bytes | None) -> bytes:
    return msg("D", values(*cells))


def complete(tag: str) -> bytes:
    return msg("C", z(tag))


def error(sqlstate: str = "42P01", severity: str = "ERROR", **fields: str) -> bytes:
    parts = {"S": severity, "V": severity, "C": sqlstate, "M": "broken", **fields}
    return msg("E", *(code.encode() + z(text) for code, text in parts.items()), b"\0")


def denied(severity: str = "ERROR") -> bytes:
    """The refusal of DENIAL, spelt out."""
    return error(
        "42501",
        severity,
        M="egress to 8.8.8.8:5432 denied: a rule matched",
        D="region US (8.8.8.0/24), rule eu-only/everything-else, session 0a1b",
        H="ask this host's operator; 'enforcer explain 8.8.8.8:5432' shows every rule tried",
    )


def upper(cells: Iterable[bytes | None], binary: Iterable[bool]) -> list[bytes | None]:
    return [c if c is None or b else c.upper() for c, b in zip(cells, binary, strict=True)]


@dataclass
class Talk:
    """Drives an inspector as the session does; collects what each end receives."""

    inspector: Inspector
    deny: Callable[[Request], bool] = lambda _: False
    masked: bool = False
    events: list[Event] = field(default_factory=list)
    upstream: bytes = b""
    client: bytes = b""
    closed: bool = False

    def feed(self, side: Side, data: bytes) -> list[Event]:
        """Hands `data` in and answers everything that follows from it."""
        self.inspector.receive_data(side, data)
        return self.drain()

    def eof(self, side: Side) -> list[Event]:
        self.inspector.receive_eof(side)
        return self.drain()

    def drain(self) -> list[Event]:
        fresh: list[Event] = []
        while (event := self.inspector.next_event()) is not None:
            fresh.append(event)
            self.take(event)
        self.events += fresh
        return fresh

    def take(self, event: Event) -> None:
        if isinstance(event, Request):
            if self.deny(event):
                refusal: Refusal = self.inspector.refuse(event, DENIAL)
                self.client += refusal.to_client
                self.closed |= refusal.close
            else:
                self.upstream += self.inspector.allow(event, masked=self.masked)
        elif isinstance(event, Forward):
            if event.side is C:
                self.upstream += event.raw
            else:
                self.client += event.raw
        elif isinstance(event, Reply):
            self.client += event.raw
        elif isinstance(event, StartTls):
            self.client += event.decline
        elif isinstance(event, Rows):
            count = len(event.values) // (len(event.columns) or 1)
            self.client += self.inspector.encode_row(event, upper(event.values, event.binary * count))
        elif isinstance(event, Text):
            self.client += self.inspector.encode_text(event, event.data.upper())

    def sent(self) -> tuple[bytes, bytes]:
        """(to the server, to the client) since the last call."""
        both, self.upstream, self.client = (self.upstream, self.client), b"", b""
        return both

    def of(self, kind: type) -> list[Event]:
        return [event for event in self.events if isinstance(event, kind)]


def opened(inspector: Inspector, *, deny: Callable[[Request], bool] = lambda _: False, masked: bool = False) -> Talk:
    """A connection past its start-up, with nothing recorded."""
    talk = Talk(inspector)
    talk.feed(C, startup(user="ana", database="shop"))
    talk.feed(S, AUTH_OK + msg("S", z("client_encoding"), z("UTF8")) + msg("K", i32(7), i32(9)) + ready())
    talk.events.clear()
    talk.sent()
    talk.deny, talk.masked = deny, masked
    return talk


def capture(name: str) -> list[tuple[Side, bytes]]:
    """A recorded session: pieces of either side, in the order in which they crossed the wire."""
    lines = (CORPUS / f"{name}.jsonl").read_text().splitlines()
    return [(Side(item["side"]), bytes.fromhex(item["hex"])) for item in map(json.loads, lines)]
