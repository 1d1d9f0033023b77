"""h11 as a second reader of HTTP/1.1: what it makes of bytes that our parser was given as well.

It is more lenient than we are (bare LF, folding), so only where both accept must they agree.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import h11

LIMIT = 1 << 22


@dataclass
class Read:
    """One message. `first`: method and target, or the status code. `complete`: h11 saw its end."""

    first: tuple[bytes, ...]
    host: bytes = b""
    body: bytes = b""
    complete: bool = False


@dataclass
class Reading:
    """`messages`: in order, interim responses left out. `refused`: h11 stopped at something malformed after them."""

    messages: list[Read] = field(default_factory=list)
    refused: bool = False


def read_requests(data: bytes) -> Reading:
    """What a server on h11 reads from a connection that carries `data` and ends."""
    reading = Reading()
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=LIMIT)
    try:
        connection.receive_data(data)
        while isinstance(event := connection.next_event(), h11.Event):
            match event:
                case h11.Request():
                    host = b"".join(value for name, value in event.headers if name == b"host")
                    reading.messages.append(Read((event.method, event.target), host))
                case h11.Data():
                    reading.messages[-1].body += bytes(event.data)
                case h11.EndOfMessage():
                    reading.messages[-1].complete = True
                    _answer(connection)
            if h11.MUST_CLOSE in (connection.our_state, connection.their_state):
                break
    except h11.RemoteProtocolError:
        reading.refused = True
    return reading


def _answer(connection: h11.Connection) -> None:
    connection.send(h11.Response(status_code=400, headers=[("Content-Length", "0")]))
    connection.send(h11.EndOfMessage())
    if connection.our_state is h11.DONE and connection.their_state is h11.DONE:
        connection.start_next_cycle()


def read_response(data: bytes, method: str, *, ended: bool) -> Reading:
    """What a client on h11 reads as the answer to its `method` request; `ended`: the connection closed after it."""
    reading = Reading()
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=LIMIT)
    connection.send(h11.Request(method=method, target="a:80" if method == "CONNECT" else "/", headers=[("Host", "a")]))
    connection.send(h11.EndOfMessage())
    try:
        connection.receive_data(data)
        if ended:
            connection.receive_data(b"")
        while isinstance(event := connection.next_event(), h11.Event):
            match event:
                case h11.Response():
                    reading.messages.append(Read((b"%d" % event.status_code,)))
                case h11.Data():
                    reading.messages[-1].body += bytes(event.data)
                case h11.EndOfMessage():
                    reading.messages[-1].complete = True
                    break
    except h11.RemoteProtocolError:
        reading.refused = True
    return reading
