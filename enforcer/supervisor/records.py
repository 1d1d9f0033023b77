"""The supervisor's end of a worker's record stream: rows into the one writer, acknowledgements back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson

from enforcer.errors import RecordError
from enforcer.identify.process import ProcessFacts, describe_process
from enforcer.log import get_logger
from enforcer.masking.masker import Masker
from enforcer.recording.rows import InvalidRow
from enforcer.recording.writer import QUEUE_ROWS, Writer

# A worker is not read from while the writer holds more than this.
BACKLOG_LIMIT = QUEUE_ROWS // 2
# Seconds until a batch that the writer refused, or a stream that waits for it, is tried again.
RETRY = 0.05
# One row: a 16 MiB statement and as much of parameters, as JSON escapes them at worst.
MAX_LINE = 192 << 20

_log = get_logger()


@dataclass(slots=True)
class _Line:
    """One line of the stream: a row, or the number of a commit."""

    row: dict[str, Any]
    commit: int | None

    @classmethod
    def read(cls, line: bytes, masker: Masker) -> _Line:
        """Raises one of ValueError, OverflowError, TypeError, KeyError, AttributeError for what is neither."""
        row = orjson.loads(line)
        if row.keys() == {"commit"}:
            return cls({}, int(row["commit"]))
        if row["table"] == "sessions":
            row.update(_who(int(row["pid"]), int(row["uid"]), masker))
        return cls(row, None)

    @property
    def is_durable(self) -> bool:
        return self.row.get("table") == "exchanges" and self.row.get("durable") is True


def _who(pid: int, uid: int, masker: Masker) -> ProcessFacts:
    """What is known of the process, its command line masked: people do put passwords and numbers there."""
    facts = describe_process(pid, uid)
    if facts["argv"] is not None:
        facts["argv"] = [masker.mask_text(argument) for argument in facts["argv"]]
    return facts


class RecordStream(asyncio.Protocol):
    """Feeds `writer` from one worker. `on_bad_row` is called when the worker sends what no sound worker sends."""

    def __init__(self, writer: Writer, masker: Masker, on_bad_row: Callable[[], None]) -> None:
        self._writer = writer
        self._masker = masker
        self._on_bad_row = on_bad_row
        self._loop = asyncio.get_running_loop()
        self._unfinished: list[bytes] = []
        self._unfinished_size = 0
        self._held: list[_Line] = []
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        if self._writer.failing:
            self.tell_failing(self._writer.failing)

    def connection_lost(self, _error: Exception | None) -> None:
        self._transport = None

    def data_received(self, data: bytes) -> None:
        """Takes whole lines. What is no JSON object, or has no end, comes from a worker that was taken over."""
        if b"\n" not in data:
            self._keep(data)
            return
        *lines, rest = b"".join((*self._unfinished, data)).split(b"\n")
        self._unfinished.clear()
        self._unfinished_size = 0
        try:
            self._held += [_Line.read(line, self._masker) for line in lines]
        except (ValueError, OverflowError, TypeError, KeyError, AttributeError) as error:
            self._reject(repr(error))
            return
        if rest:
            self._keep(rest)
        self._submit()

    def _keep(self, data: bytes) -> None:
        """The beginning of a line whose end is still to come. Joined once, so that a long one costs its length only."""
        self._unfinished.append(data)
        self._unfinished_size += len(data)
        if self._unfinished_size > MAX_LINE:
            self._reject(f"a row of more than {MAX_LINE} bytes")

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
                self._reject(str(error))
                return
            except RecordError as error:
                if number is not None:
                    # What waits for the answer does not happen; the rest of the batch tells what did.
                    self._answer({"commit": number, "error": str(error)})
                    kept = [line for line in self._held[:taken] if line.commit is None and not line.is_durable]
                    self._held[:taken] = kept
                self._pause()
                return
            del self._held[:taken]
        if self._writer.backlog > BACKLOG_LIMIT:
            self._pause()

    def _next_batch(self) -> tuple[list[dict[str, Any]], int | None, int]:
        """Rows up to the next commit or the end, that commit's number, and how many lines they are."""
        rows: list[dict[str, Any]] = []
        for taken, line in enumerate(self._held, start=1):
            if line.commit is not None:
                return rows, line.commit, taken
            rows.append(line.row)
        return rows, None, len(self._held)

    def _reject(self, what: str) -> None:
        _log.error("worker sent a bad row", error=what)
        self._held.clear()
        self._unfinished.clear()
        self._on_bad_row()

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
