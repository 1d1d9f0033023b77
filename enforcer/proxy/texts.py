"""Step 4 of 6, inspect, of a session: rows and texts on their way through the masks of their exchanges.

Gets `Rows` and `Text` of the inspector; hands what became of them to the outbox. What cannot be masked refuses its
exchange. Of streamed answers, documents wait while they may end in a part of a pseudonym; where nothing comes for a
while, they go on as they are.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod

from enforcer.flow import Flow, Side
from enforcer.masking.errors import MaskError
from enforcer.protocols.base import Rows, Text
from enforcer.proxy.environment import Environment
from enforcer.proxy.exchange import Exchange
from enforcer.proxy.silence import Silence
from enforcer.proxy.state import State

# Seconds in which the loop gets to what is there to be read.
LOOK = 0.01


class Texts(Silence):
    """The part of a session that masks."""

    def __init__(self, flow: Flow, environment: Environment, client: asyncio.Transport) -> None:
        super().__init__(flow, environment, client)
        # By exchange: what lets go of what waits in its answer.
        self._pauses: dict[int, asyncio.TimerHandle] = {}

    @abstractmethod
    def _answered(self, number: int) -> Exchange: ...

    @abstractmethod
    def _refuse_exchange(self, exchange: Exchange, reason: str) -> None: ...

    def _take_rows(self, rows: Rows) -> None:
        exchange = self._answered(rows.exchange)
        if exchange.masker is None:
            self._out.to_client(rows.raw)
            return
        try:
            values = exchange.masker.rows(rows.columns, rows.values, rows.binary, exchange.masked, strings=rows.strings)
        except MaskError as error:
            self._refuse_exchange(exchange, str(error))
            return
        self._out.to_client(rows.raw if values is None else self._parser().encode_row(rows, values))

    def _take_text(self, text: Text) -> None:
        exchange = self._answered(text.exchange)
        try:
            masked = exchange.mask(text)
        except MaskError as error:
            self._refuse_exchange(exchange, str(error))
            return
        self._write_texts(masked)
        if exchange.patience or self._pauses:
            self._pause(text.exchange, exchange.patience)

    def _write_texts(self, masked: list[tuple[Text, bytes | None]]) -> None:
        for text, data in masked:
            write = self._out.to_client if text.side is Side.SERVER else self._out.to_server
            write(text.raw if data is None else self._parser().encode_text(text, data))

    # --- what waits

    def _pause(self, number: int, patience: float) -> None:
        """More of the answer has come: what waits now waits for so many seconds, from now on."""
        timer = self._pauses.pop(number, None)
        if timer is not None:
            timer.cancel()
        if patience:
            self._pauses[number] = self._environment.loop.call_later(patience, self._look_again, number)

    def _look_again(self, number: int) -> None:
        """What has come while this process had no time is read first."""
        self._pauses[number] = self._environment.loop.call_later(LOOK, self._let_go, number)

    def _let_go(self, number: int) -> None:
        """Nothing more has come."""
        self._pauses.pop(number, None)
        exchange = self._exchanges.get(number)
        if exchange is None or self._state is State.CLOSED:
            return
        try:
            self._write_texts(exchange.release())
            self._out.write_soon()
        except MaskError as error:
            self._refuse_exchange(exchange, str(error))
        except Exception as error:  # noqa: BLE001 - whatever it is, the flow ends as denied and recorded
            self._fail(error)
