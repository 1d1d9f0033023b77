"""The supervisor's end of a worker's record stream: rows into the one writer, acknowledgements back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import orjson
import structlog

from enforcer.errors import RecordError
from enforcer.identify.process import describe_process
from enforcer.recording.rows import InvalidRow
from enforcer.recording.writer import QUEUE_ROWS, Writer

# A worker is not read from while the writer holds more than this.
BACKLOG_LIMIT = QUEUE_ROWS // 2
# Seconds until a batch that the writer refused, or a stream that waits for it, is tried again.
RETRY = 0.05

_log = structlog.get_logger()


class RecordStream(asyncio.Protocol):
    """Feeds `writer` from one worker. `on_bad_row` is called when the worker sends what no sound worker sends."""

    def __init__(self, writer: Writer, on_bad_row: Callable[[], None]) -> None:
        self._writer = writer
        self._on_bad_row = on_bad_row
        self._loop = asyncio.get_running_loop()
        self._received = b""
        self._held: list[bytes] = []
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def connection_lost(self, _error: Exception | None) -> None:
        self._transport = None

    def data_received(self, data: bytes) -> None:
        *lines, self._received = (self._received + data).split(b"\n")
        self._held += lines
        self._submit()

    def tell_failing(self, reason: str) -> None:
        """Tells the worker that the recorder cannot write, or with an empty reason that it can again."""
        self._answer({"failing": reason})

    def _submit(self) -> None:
        """Hands on what is held, up to each commit; keeps it, and stops reading, while the writer cannot take it."""
        while self._held:
            rows, number, taken = self._next_batch()
            try:
                on_commit = None if number is None else self._acknowledger(number)
                self._writer.submit(rows, on_commit)
            except InvalidRow as error:
                _log.error("worker sent a bad row", error=str(error))
                self._on_bad_row()
                return
            except RecordError as error:
                if number is None:
                    self._pause()
                    return
                self._answer({"commit": number, "error": str(error)})
            del self._held[:taken]
        if self._writer.backlog > BACKLOG_LIMIT:
            self._pause()

    def _next_batch(self) -> tuple[list[dict[str, Any]], int | None, int]:
        """Rows up to the next commit or the end, that commit's number, and how many lines they are."""
        rows: list[dict[str, Any]] = []
        for taken, line in enumerate(self._held, start=1):
            row = orjson.loads(line)
            if "commit" in row:
                return rows, row["commit"], taken
            if row["table"] == "sessions":
                row.update(describe_process(row["pid"], row["uid"]))
            rows.append(row)
        return rows, None, len(self._held)

    def _pause(self) -> None:
        if self._transport is not None:
            self._transport.pause_reading()
            self._loop.call_later(RETRY, self._go_on)

    def _go_on(self) -> None:
        if self._transport is not None:
            self._transport.resume_reading()
            self._submit()

    def _acknowledger(self, number: int) -> Callable[[Exception | None], None]:
        def on_commit(error: Exception | None) -> None:
            text = "" if error is None else str(error)
            self._loop.call_soon_threadsafe(self._answer, {"commit": number, "error": text})

        return on_commit

    def _answer(self, message: dict[str, Any]) -> None:
        if self._transport is not None:
            self._transport.write(orjson.dumps(message) + b"\n")
