"""The inbox: one turn's bytes in order of arrival, large ones and ends of stream at once."""

from __future__ import annotations

import asyncio

from enforcer.proxy.inbox import Inbox
from enforcer.proxy.journal import LARGE


class FlushedJournal:
    """Remembers when it was told to send."""

    def __init__(self, log: list[str]) -> None:
        self._log = log

    def flush(self) -> None:
        self._log.append("flush")


def turn(act: object) -> list[str]:
    """What happened, in order, when `act(inbox, log)` ran within one turn of a loop."""

    async def run() -> list[str]:
        log: list[str] = []
        inbox = Inbox(asyncio.get_running_loop(), FlushedJournal(log))  # type: ignore[arg-type]
        act(inbox, log)  # type: ignore[operator]
        log.append("turn over")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return log

    return asyncio.run(run())


def test_small_pieces_are_judged_together_in_order_and_then_sent() -> None:
    """Nothing is judged before all of the turn is read; then each connection's bytes in their order; then one flush."""

    def act(inbox: Inbox, log: list[str]) -> None:
        for name in ("a1", "b1", "a2"):
            inbox.receive(lambda data: log.append(data.decode()), name.encode())

    assert turn(act) == ["turn over", "a1", "b1", "a2", "flush"]


def test_a_large_piece_is_judged_at_once_after_what_came_before_it() -> None:
    """It does not pile up, and does not overtake."""

    def act(inbox: Inbox, log: list[str]) -> None:
        inbox.receive(lambda _: log.append("small"), b"x")
        inbox.receive(lambda _: log.append("large"), bytes(LARGE))

    assert turn(act) == ["small", "large", "turn over", "flush"]


def test_an_end_of_stream_can_have_its_bytes_judged_first() -> None:
    """`judge` leaves nothing for later, also what judging itself brings in."""

    def act(inbox: Inbox, log: list[str]) -> None:
        inbox.receive(lambda _: inbox.receive(lambda _: log.append("second"), b"y"), b"x")
        inbox.judge()
        log.append("end")

    assert turn(act)[:2] == ["second", "end"]
