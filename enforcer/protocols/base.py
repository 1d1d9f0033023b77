"""Step 4 of 6, inspect: the one interface every protocol implements.

Sans-IO: gets bytes of either side, hands on events; never touches a socket, clock, log, policy or mask.
The session feeds `receive_data`, drains `next_event`, decides on each `Request`, masks `Rows` and `Text`, and
writes the bytes that come back. See `docs/adding-a-protocol.md`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol as Interface

from enforcer.flow import Side
from enforcer.verdict import Denial

Rewrite = Callable[[bytes], bytes]
"""Hides values in one text: returns it rewritten, or the very same object where it held none. May raise MaskError."""

Replaced = Callable[[str, str, bytes], bytes | None]
"""Hides a value for its name: gets `header` or `query`, the name and the value; returns what stands for it, or None
where no rule names it. May raise MaskError."""

Answered = Callable[[str, bytes], bytes]
"""Name and value of a header field of the answer; returns the value as the client gets it."""


class CellRewrite(ABC):
    """A `Rewrite` that also knows values by the columns they are written to or compared with."""

    @abstractmethod
    def __call__(self, data: bytes) -> bytes: ...

    @abstractmethod
    def cells(
        self, columns: tuple[str, ...], values: list[bytes | None], binary: tuple[bool, ...]
    ) -> list[bytes | None] | None:
        """The values of one row (see `Rows`) rewritten; None where nothing changes. May raise MaskError."""


class Probe(Enum):
    """Answer to "are these a client's first bytes of your protocol?"."""

    YES = "yes"
    NO = "no"
    MORE = "need more bytes"


@dataclass(slots=True)
class Request:
    """One exchange begins and waits for its verdict; nothing of it has gone upstream yet.

    `exchange`: number of this exchange in the session, from 1. `operation`: the protocol's word (`GET`, `Query`,
    `Parse`, `Execute`, `Startup`). `text`: the exact request (statement, or `METHOD target`). `params`: its
    parameters as text, None for NULL. `facts`: what policy and masking may look at (`host`, `user`, `database`); they
    are recorded. `raw`: what goes upstream once allowed. `fields`: header fields as the client wrote them, for policy
    alone. `bodiless`: it is known that no body follows. `tunnel`: host and port that a connection is asked for through
    the server, which is egress to them as well. `within`: the exchange that what answers it belongs to, where that is
    not this one (0: it is). `media`: what it will be answered with is a `Text` of this type, as far as that is known.
    Before it allows the request the session sets `replaced`, which masks header fields and pairs of the query for their
    names, and `answered`, which does so for header fields of the answer, if a rule does. `clean`: heads of answers in
    which it has found nothing to hide, and never will; None where that may change.
    """

    exchange: int
    operation: str
    text: str
    raw: bytes
    params: tuple[str | None, ...] = ()
    facts: dict[str, str] = field(default_factory=dict)
    fields: Sequence[tuple[bytes, bytes]] = ()
    bodiless: bool = False
    tunnel: tuple[str, int] | None = None
    within: int = 0
    fault: str = ""
    media: str = ""
    replaced: Replaced | None = None
    answered: Answered | None = None
    clean: set[object] | None = None


@dataclass(slots=True)
class Forward:
    """Bytes from `side` to the other end that need no verdict of their own and hold nothing to mask."""

    side: Side
    raw: bytes


@dataclass(slots=True)
class Reply:
    """Bytes for the client that we answer ourselves; the server never sees the question."""

    raw: bytes


@dataclass(slots=True)
class Rows:
    """Result cells of exchange `exchange`: one row, or several of the same columns one after another. `values[i]`
    belongs to `columns[i % len(columns)]` (`table.column` or `column`); None is NULL. `binary`, like `columns`: the
    cell is in a binary format that text operators must not touch. `strings`, too: clients read it as a text, whatever
    it looks like; empty where no types are known."""

    exchange: int
    columns: tuple[str, ...]
    values: list[bytes | None]
    binary: tuple[bool, ...]
    raw: bytes
    strings: tuple[bool, ...] = ()


class Part(Enum):
    """What a `Text` is of all that its exchange says."""

    PIECE = "a piece of a text that goes on until its last one"
    MESSAGE = "a message by itself, whole; what it says may go on in the next"
    ASIDE = "something by itself, whole, in between messages"


@dataclass(slots=True)
class Text:
    """A piece of text of exchange `exchange` that is to be masked, `final` on its last piece (which may be empty).

    `media` is its type as the protocol knows it (`application/json`, `copy`, `error`), lower case. `side`: whose text,
    the server's answer or the client's request. One exchange may carry several texts of a side one after another,
    never interleaved. Messages of the server may wait for those behind them, and are written in their order.
    """

    exchange: int
    media: str
    data: bytes
    final: bool
    raw: bytes
    side: Side = Side.SERVER
    part: Part = Part.PIECE


@dataclass(slots=True)
class Outcome:
    """Exchange `exchange` is over. `status`: the protocol's word (`200`, `SELECT`, SQLSTATE). `rows`: rows
    returned or affected, None where the word has no meaning. `failed`: the server reported an error."""

    exchange: int
    status: str
    rows: int | None = None
    failed: bool = False


@dataclass(slots=True)
class Unmaskable:
    """The answer to exchange `exchange` was to be masked and cannot be (`reason`: an encoding, a charset).
    The session refuses it; the inspector has handed on nothing of it."""

    exchange: int
    reason: str


@dataclass(slots=True)
class Switched:
    """From here on the connection speaks otherwise, as both ends agreed within exchange `exchange`. `inspector` goes on
    with it (its exchanges are numbered on from there); without one the connection is a tunnel, which is identified
    anew. `client` and `server`: what each of them has sent of it already."""

    exchange: int
    inspector: Inspector | None
    client: bytes
    server: bytes


@dataclass(slots=True)
class TlsOffer:
    """A server that speaks first offers TLS. The client is told `accept` where it may take that up, which is a
    `StartTls` then, else `decline`."""

    accept: bytes
    decline: bytes


@dataclass(slots=True)
class StartTls:
    """The client asks to go on in TLS, with this same inspector inside it, which both ends of it go on to see in clear.

    `ask`: what asks the server for the same; `yes` and `no`: its possible answers, empty where it has agreed already.
    `accept`: the client is told before its handshake; `decline`: where it has to go on in clear, because policy neither
    reads nor passes TLS here, or the server has none. `client`: what the client has sent of TLS already. Nothing else
    may be under way. The session hands on only what is inside, or, after `decline`, what follows in clear.
    """

    ask: bytes
    yes: bytes = b""
    no: bytes = b""
    accept: bytes = b""
    decline: bytes = b""
    client: bytes = b""


Event = Request | Forward | Reply | Rows | Text | Unmaskable | Outcome | Switched | TlsOffer | StartTls


@dataclass(slots=True)
class Refusal:
    """A denial in the protocol's words. `close`: nothing can follow on this connection."""

    to_client: bytes
    close: bool


class Inspector(Interface):
    """One session's parser. `receive_data` may raise ProtocolError or LimitExceeded; `next_event` too.

    After a `Request` is returned the session answers, before it calls `next_event` again, with exactly one of
    `allow(request, masked)` or `refuse(request, denial)`.
    """

    name: str
    half_close: bool
    """The client's end of stream goes on to the server while its exchange is open; else it waits for the answer."""

    rewrites: bool
    """Requests can be masked: `allow` takes a `rewrite`. Else the session refuses what a rule wants rewritten."""

    multiplexed: bool
    """Exchanges run side by side: `refuse` ends one of them in mid-answer and leaves the others, and an end of either
    side's stream ends what is open by events."""

    def read_bodies(self) -> None:
        """Policy asks for facts that are in requests' bodies (`body_facts.facts_of`, also where there is no body): from
        now on a `Request` comes with them, where the protocol has bodies and this one is of a kind that is read."""

    def receive_data(self, side: Side, data: bytes) -> None:
        """Takes bytes of one side. Buffers are bounded by the protocol's named limits."""

    def receive_eof(self, side: Side) -> None:
        """`side` will send no more. Events that this completes follow from `next_event`."""

    def next_event(self) -> Event | None:
        """The next event in order, or None when more bytes are needed.

        Also None while an earlier exchange must finish before the next `Request` may be judged."""

    def allow(self, request: Request, *, masked: bool, rewrite: Rewrite | None = None) -> bytes:
        """Bytes to send upstream. `masked`: responses of this exchange will be rewritten, so the inspector
        asks the server for a form that can be (identity encoding, no ranges, text cells). `rewrite`: what the request
        says goes through it, and its body follows as `Text` of the client's side. Raises what `rewrite` raises, which
        ends the flow, and Unwritable, as if it had not been called: then the session refuses the request."""

    def refuse(self, request: Request | None, denial: Denial) -> Refusal:
        """Deny `request` (None: the flow as a whole, also in mid-answer) so that the client understands and,
        where the protocol allows, goes on. Later events skip what belonged to the refused exchange."""

    def encode_row(self, rows: Rows, values: list[bytes | None]) -> bytes:
        """`rows` with its cells replaced."""

    def encode_text(self, text: Text, data: bytes) -> bytes:
        """`text` with its data replaced (`data` may be shorter, longer or empty: held back by the masker)."""


class Protocol(Interface):
    """What `registry.py` holds one of per protocol."""

    name: str

    def probe(self, data: bytes) -> Probe:
        """Do the client's first bytes `data` (at least one) begin this protocol? Pure; never raises."""

    def inspector(self) -> Inspector:
        """A fresh parser for one session."""


class ServerFirst(Protocol, Interface):
    """A protocol in which the server greets before the client says anything. Its inspector begins with a `Request` for
    the connection itself, and `probe` claims no client's bytes. `port`: where its servers usually are; a client that is
    silent there is taken for one of this protocol at once."""

    port: int

    def greets(self, data: bytes) -> Probe:
        """Do the server's first bytes `data` (at least one) begin this protocol? Pure; never raises; must be certain
        within 64 bytes."""
