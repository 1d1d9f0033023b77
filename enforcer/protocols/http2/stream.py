"""Step 4 of 6, inspect: one stream of HTTP/2, which is one exchange: where it stands and what it holds."""

from __future__ import annotations

from enum import Enum

from enforcer.protocols.base import Answered
from enforcer.protocols.http2.compression import Fields
from enforcer.protocols.http2.heads import RequestHead, ResponseHead
from enforcer.protocols.http2.peer import Half, Peer
from enforcer.protocols.http2.texts import Texts


class State(Enum):
    """Where the request of a stream stands. How far its two directions are is in their halves."""

    __hash__ = object.__hash__  # members are singletons; Enum's own hash costs a Python call per look-up

    WAITING = "its head is here; its turn, or its body, is awaited"
    HELD = "handed on; waits for its verdict"
    OPEN = "allowed"
    WITHHELD = "what it says or is answered cannot be masked; awaits the refusal"
    REFUSED = "answered by us; the rest of the request is dropped"


class Input(Enum):
    """What moves a stream."""

    __hash__ = object.__hash__

    ASK = "it was handed on"
    ALLOW = "it was allowed"
    WITHHOLD = "something was found that cannot be masked"
    REFUSE = "it was refused"


TRANSITIONS: dict[State, dict[Input, State]] = {
    State.WAITING: {Input.ASK: State.HELD, Input.REFUSE: State.REFUSED},
    State.HELD: {Input.ALLOW: State.OPEN, Input.REFUSE: State.REFUSED},
    State.OPEN: {Input.WITHHOLD: State.WITHHELD, Input.REFUSE: State.REFUSED},
    State.WITHHELD: {Input.REFUSE: State.REFUSED},
    State.REFUSED: {},
}
# The members by themselves: up to Python 3.11, `State.OPEN` runs a Python function each time.
WAITING, HELD, OPEN, WITHHELD, REFUSED = State
ASK, ALLOW, WITHHOLD, REFUSE = Input


class Stream:
    """`number`: the client's; the server has its own in `up.stream`, once it was told of it (`sent`).

    `held`: the body before the verdict; `awaited`: it is to be whole before the request is handed on; `document`: then
    what it says, decoded. `asked_texts` and `answered_texts`: what rewrites either body. `answered`: what rewrites
    fields of the answer's head, `clean`: heads that it leaves as they are (`protocols.base.Request`). `concluded`: its
    outcome was handed on, or it needs none.
    """

    __slots__ = (
        "answer",
        "answered",
        "answered_texts",
        "asked_texts",
        "awaited",
        "clean",
        "concluded",
        "document",
        "down",
        "exchange",
        "grpc_status",
        "head",
        "held",
        "held_size",
        "masked",
        "number",
        "sent",
        "started",
        "state",
        "trailers",
        "up",
    )

    def __init__(self, number: int, head: RequestHead, client: Peer, server: Peer) -> None:
        self.number = number
        self.head = head
        self.up = Half(client, server, 0)
        self.down = Half(server, client, number)
        self.state: State = WAITING
        self.exchange = 0
        self.held: list[bytes] = []
        self.held_size = 0
        self.awaited = False
        self.document = b""
        self.trailers: Fields | None = None
        self.sent = False
        self.masked = False
        self.answered: Answered | None = None
        self.clean: set[object] | None = None
        self.answer: ResponseHead | None = None
        # The head of the answer, or of ours, went to the client.
        self.started = False
        self.asked_texts: Texts | None = None
        self.answered_texts: Texts | None = None
        self.concluded = False
        self.grpc_status = ""

    def move(self, what: Input) -> None:
        self.state = TRANSITIONS[self.state][what]

    @property
    def done(self) -> bool:
        return self.up.ended and self.up.over and self.down.over
