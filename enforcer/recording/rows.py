"""Step 6 of 6, record: the rows that workers and the supervisor send, as typed dictionaries.

They travel as JSON objects of these keys. They are the one description of what is sent: senders are type-checked
against them, and the check on arrival (`check.py`) is derived from them. A key that may be None may also be left out.
Text must be valid Unicode: a sender replaces the bytes that are not (`errors="backslashreplace"`).
"""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict

from enforcer.errors import RecordError

# `protocol` of a flow that the kernel let go directly: nobody read what it carried. No protocol bears this name.
DIRECT = "direct"
# `protocol` of what an executor asked the resolver. Its address is 0.0.0.0 where it came in a datagram: the kernel
# sends those to the resolver whatever address they named.
DNS = "dns"


class InvalidRow(RecordError):
    """A row that no sound sender sends: what is wrong with it, never the value."""


class SessionRow(TypedDict):
    """A flow was opened and judged. `region` is the set of regions joined by `/`; empty strings mean none. `protocol`
    is DIRECT for a flow that did not pass the proxy: then it has no exchanges."""

    table: Literal["sessions"]
    time_ns: int
    id: str
    executor: str
    executor_ident: str
    cgroup: str
    pid: int
    uid: int
    user: str
    exe: NotRequired[str | None]
    argv: NotRequired[list[str] | None]
    unit: NotRequired[str | None]
    destination: str
    address: str
    port: int
    host: NotRequired[str | None]
    protocol: NotRequired[str | None]
    region: str
    region_kind: str
    prefix: str
    table_source: str
    table_version: str
    generation: int
    policy: str
    rule: str
    action: str
    reason: str
    detail: str
    observed: bool


class ExchangeRow(TypedDict):
    """A request with its verdict. Durable: on disk before its bytes go on, without `status` to `masked`, which follow
    as an `OutcomeRow`. Denied: sent at once, without them. Otherwise sent with them when the exchange ends, unless it
    lasts too long to wait for that: then without, and they follow."""

    table: Literal["exchanges"]
    time_ns: int
    session: str
    exchange: int
    protocol: str
    operation: str
    text: str
    params: list[str | None]
    facts: dict[str, str]
    action: str
    policy: str
    rule: str
    reason: str
    detail: str
    observed: bool
    durable: bool
    status: NotRequired[str | None]
    rows: NotRequired[int | None]
    failed: NotRequired[bool | None]
    bytes_up: NotRequired[int | None]
    bytes_down: NotRequired[int | None]
    duration_ns: NotRequired[int | None]
    masked: NotRequired[dict[str, int] | None]


class OutcomeRow(TypedDict):
    """The end of an exchange whose row was sent before it ended. `masked`: number of values masked, by detector or
    field name; never the values."""

    table: Literal["outcomes"]
    time_ns: int
    session: str
    exchange: int
    status: str
    rows: NotRequired[int | None]
    failed: bool
    bytes_up: int
    bytes_down: int
    duration_ns: int
    masked: dict[str, int]


class SessionEndRow(TypedDict):
    """The end of a flow. `cause`: who or what ended it; `exchanges`: how many there were."""

    table: Literal["session_ends"]
    time_ns: int
    session: str
    cause: str
    bytes_up: int
    bytes_down: int
    exchanges: int
    duration_ns: int


class RefusalRow(TypedDict):
    """`count` refusals without a session since the last such row (kernel refusals); pid and uid of the latest."""

    table: Literal["refusals"]
    time_ns: int
    executor: str
    destination: str
    protocol: NotRequired[str | None]
    reason: str
    count: int
    pid: NotRequired[int | None]
    uid: NotRequired[int | None]


class EventRow(TypedDict):
    """Something that happened to the enforcer itself or to an executor as a whole; `kind` says what, in free words
    that docs/records.md lists."""

    table: Literal["events"]
    time_ns: int
    kind: str
    detail: dict[str, object]


AnyRow = SessionRow | ExchangeRow | OutcomeRow | SessionEndRow | RefusalRow | EventRow

# Tables whose rows announce something new. While the disk refuses writes nothing new may begin.
BEGINNINGS = frozenset({"sessions", "exchanges"})
