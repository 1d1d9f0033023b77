"""An inspector between real clients and a real server, on the loopback interface: the session's part is played by
`tests.conversation.Conversation`."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from select import select

from enforcer.flow import Side
from enforcer.protocols.base import Inspector, Outcome, Request, Rewrite, Rows, Text
from tests.conversation import Conversation, Decide

PIECE = 65536


class Relay:
    """One thread per connection. `requests`, `outcomes`: of all of them, in the order of their verdicts. `sent_up`: all
    that went to the server. `piece`: bytes of a read."""

    def __init__(
        self,
        inspector: Callable[[], Inspector],
        server_port: int,
        *,
        decide: Decide | None = None,
        mask_rows: Callable[[Rows], list[bytes | None]] | None = None,
        mask_text: Callable[[Text], bytes] | None = None,
        rewrite: Rewrite | None = None,
        piece: int = PIECE,
    ) -> None:
        self.requests: list[Request] = []
        self.outcomes: list[Outcome] = []
        self.sent_up = b""
        self._make = lambda: Conversation(inspector(), decide, mask_text, mask_rows, rewrite, quiet=True)
        self._server_port = server_port
        self._piece = piece
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._ends: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._carry, args=(client,), daemon=True)
            thread.start()
            self._threads.append(thread)

    def _carry(self, client: socket.socket) -> None:
        talk = self._make()
        with client, socket.create_connection(("127.0.0.1", self._server_port)) as server, suppress(OSError):
            self._ends += [client, server]
            ends = {client: Side.CLIENT, server: Side.SERVER}
            while not talk.closed:
                for end in select(list(ends), [], [])[0]:
                    data = end.recv(self._piece)
                    self._step(talk, ends[end], data)
                    up, down = talk.take_upstream(), talk.take_client()
                    self.sent_up += up
                    server.sendall(up)
                    client.sendall(down)
                    if not data:
                        return

    def _step(self, talk: Conversation, side: Side, data: bytes) -> None:
        if data:
            (talk.client_sends if side is Side.CLIENT else talk.server_sends)(data)
        else:
            (talk.client_closes if side is Side.CLIENT else talk.server_closes)()
        self.requests += talk.requests
        self.outcomes += talk.outcomes
        talk.requests.clear()
        talk.outcomes.clear()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for end in self._ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._acceptor.join(10)
        for thread in self._threads:
            thread.join(10)


@contextmanager
def relay(inspector: Callable[[], Inspector], server_port: int, **how: object) -> Iterator[Relay]:
    made = Relay(inspector, server_port, **how)  # type: ignore[arg-type]
    try:
        yield made
    finally:
        made.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
