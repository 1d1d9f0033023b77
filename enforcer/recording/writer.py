"""Step 6 of 6, record: the one thread that writes.

Gets rows as workers and the supervisor send them; hands back, per submission, whether they are safely on disk. Never
decides what a failure means: the caller denies.

Group commit: the thread takes everything queued, chains it, and writes it in one transaction. A submission with a
callback has somebody waiting and is written at once; one without is written when enough has gathered, or after
COMMIT_INTERVAL. Rows, chain and head change in the same transaction, so a failed one leaves the chain as it was.

When the disk refuses (full, I/O error), callers that wait are told, and the durable exchanges they submitted are
dropped: those requests do not go on. All other rows tell of what did happen: they are kept and tried again. Until a
write works, `failing` says why, and new sessions and exchanges that nobody waits for are refused at `submit`.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from enforcer.errors import RecordError
from enforcer.recording.chain import Head, link
from enforcer.recording.check import Row, check
from enforcer.recording.rows import BEGINNINGS
from enforcer.recording.schema import FORM, FORMS, open_for_writing

# Seconds that a row nobody waits for may stay in memory: what a power cut can lose of a flow that is not `durable`.
COMMIT_INTERVAL = 0.2
# Rows that start a commit before the interval is over. Larger groups save little more per row.
COMMIT_ROWS = 512
# Seconds between attempts while writing fails: soon enough to notice freed space, rare enough to cost nothing.
RETRY_INTERVAL = 0.5
# Rows and bytes held in memory, the group being written included; beyond, `submit` refuses. One core writes some
# 40,000 rows/s, so this is less than half a second of backlog; the bytes keep a flood of the longest statements from
# filling memory.
QUEUE_ROWS = 16384
QUEUE_BYTES = 64 * 1024 * 1024

OnCommit = Callable[[Exception | None], None]

_NEVER = float("inf")
_INSERT = {
    table: f"INSERT INTO {table} VALUES ({', '.join('?' * (5 + len(columns)))})"  # noqa: S608 (our own names)
    for table, columns in FORMS[FORM].items()
}
_MOVE_HEAD = "UPDATE chain_head SET seq = ?, hash = ? WHERE id = 1 AND seq = ? AND hash = ?"


@dataclass(frozen=True, slots=True)
class _Submission:
    rows: list[Row]
    size: int
    on_commit: OnCommit | None


class Writer:
    """The only writer of the database at `path`. Every method may be called from any thread.

    Raises RecordError when the database cannot be opened, is newer, or its chain does not end at its head.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection, self._head = open_for_writing(path)
        self._changed = threading.Condition()
        # All below is guarded by _changed; the connection and the head belong to the thread.
        self._queue: list[_Submission] = []
        self._in_flight: list[_Submission] = []
        self._queued_rows = 0  # of _queue
        self._held_rows = 0  # of _queue and _in_flight
        self._held_bytes = 0
        self._due = _NEVER  # monotonic time of the next write
        self._failing: str | None = None
        self._closing = False
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="record-writer", daemon=True)
        self._thread.start()

    @property
    def head(self) -> Head:
        """The newest committed row of the chain."""
        return self._head

    @property
    def failing(self) -> str | None:
        """Why rows cannot be written at present; None when the last write worked."""
        return self._failing

    @property
    def backlog(self) -> int:
        """Rows held in memory, the group being written included."""
        return self._held_rows

    def submit(self, rows: Sequence[Mapping[str, Any]], on_commit: OnCommit | None = None) -> None:
        """Queues `rows` in order, all or none.

        `on_commit` is called with None once the rows are on disk, or with the error when writing them failed; then the
        durable exchanges among them will never be written. It is called from the writer's thread, or by `submit`
        itself when writing fails already, and must not block. Raises InvalidRow for a row that cannot be stored, and
        RecordError when the queue is full, the writer was closed, or writing fails at present and rows without
        `on_commit` announce something new; nothing is queued then.
        """
        checked = [check(row) for row in rows]
        with self._changed:
            if self._closing or self._ended:
                raise RecordError("records are closed; start the supervisor again")
            failing = self._failing
            if failing is not None:
                if on_commit is None and any(row.table in BEGINNINGS for row in checked):
                    raise RecordError(failing)
                checked = [row for row in checked if on_commit is None or not row.durable]
            submission = _Submission(checked, _size(checked), on_commit if failing is None else None)
            if self._held_rows + len(checked) > QUEUE_ROWS or self._held_bytes + submission.size > QUEUE_BYTES:
                raise RecordError("the record queue is full; use a faster disk or fewer recorded exchanges")
            self._queue.append(submission)
            self._queued_rows += len(checked)
            self._held_rows += len(checked)
            self._held_bytes += submission.size
            self._schedule(waited_for=submission.on_commit is not None)
        if failing is not None and on_commit is not None:
            on_commit(RecordError(failing))

    def close(self) -> None:
        """Writes what is queued, ends the thread and closes the database; a second call does nothing.

        Raises RecordError when rows were lost because the last attempt to write them failed.
        """
        with self._changed:
            if self._closing:
                return
            self._closing = True
            self._changed.notify()
        self._thread.join()
        self._connection.close()
        if self._held_rows:
            raise RecordError(f"{self._held_rows} rows were not recorded; {self._failing}")

    def _schedule(self, *, waited_for: bool) -> None:
        """Brings the next write forward where the queue now calls for it. Holds the lock."""
        if self._failing is not None:
            return  # the retry is scheduled already
        if waited_for or self._queued_rows >= COMMIT_ROWS:
            due = 0.0
        elif self._due == _NEVER:
            due = time.monotonic() + COMMIT_INTERVAL
        else:
            return
        if due < self._due:
            self._due = due
            self._changed.notify()

    def _run(self) -> None:
        try:
            while self._wait():
                self._write()
        finally:  # also when something unforeseen ends the thread: nobody may wait for ever, nothing more is accepted
            with self._changed:
                self._ended = True
                self._failing = self._failing or "the record writer has ended; start the supervisor again"
                left = self._in_flight + self._queue
            _tell(left, RecordError(self._failing))

    def _wait(self) -> bool:
        """Sleeps until a write is due. False when the writer is closing and all that can be written is."""
        with self._changed:
            while not self._closing:
                patience = self._due - time.monotonic()
                if patience <= 0:
                    return True
                self._changed.wait(None if patience == _NEVER else patience)
            return bool(self._queue) and self._due != _NEVER

    def _write(self) -> None:
        """One group commit of everything queued."""
        with self._changed:
            group, self._queue = self._queue, []
            self._in_flight = group
            self._queued_rows = 0
            self._due = _NEVER
        error: sqlite3.Error | RecordError | None = None
        try:
            self._head = self._commit(group)
        except (sqlite3.Error, RecordError) as fault:
            error = fault
            with suppress(sqlite3.Error):  # some errors have rolled back already
                self._connection.execute("ROLLBACK")
        kept = [] if error is None else [_left_of(submission) for submission in group]
        self._settle(group, kept, error)
        _tell(group, error)

    def _settle(self, group: list[_Submission], kept: list[_Submission], error: Exception | None) -> None:
        """Accounts for a group that was written (`error` None) or of which only `kept` remains to be written."""
        with self._changed:
            kept_rows = sum(len(submission.rows) for submission in kept)
            self._queued_rows += kept_rows
            self._held_rows += kept_rows - sum(len(submission.rows) for submission in group)
            self._held_bytes += sum(s.size for s in kept) - sum(s.size for s in group)
            self._in_flight = []
            if error is None:
                if self._failing is not None and self._queue:
                    self._due = 0.0  # came while the retry was under way, so nothing has scheduled it
                self._failing = None
                return
            self._failing = f"records cannot be written: {error}; free space at {self._path.parent}"
            self._queue[:0] = kept
            self._due = _NEVER if self._closing else time.monotonic() + RETRY_INTERVAL

    def _commit(self, group: list[_Submission]) -> Head:
        """Chains and writes `group` in one transaction; the new head. Raises sqlite3.Error or RecordError."""
        seq, digest = self._head.seq, self._head.hash
        inserts: dict[str, list[tuple[object, ...]]] = {}
        for submission in group:
            for row in submission.rows:
                seq += 1
                previous = digest
                digest = link(previous, FORM, row.table, seq, row.tail)
                inserts.setdefault(row.table, []).append((seq, FORM, *row.values, previous, digest))
        execute = self._connection.execute
        execute("BEGIN IMMEDIATE")
        for table, values in inserts.items():
            self._connection.executemany(_INSERT[table], values)
        # Written also when the group is empty: that is how a retry finds out that writing works again.
        if execute(_MOVE_HEAD, (seq, digest, self._head.seq, self._head.hash)).rowcount != 1:
            raise RecordError("another process has changed the chain; stop it and run 'enforcer sessions verify'")
        execute("COMMIT")
        return Head(seq, digest)


def _size(rows: list[Row]) -> int:
    return sum(len(row.tail) for row in rows)


def _left_of(failed: _Submission) -> _Submission:
    """What is tried again of a submission that could not be written."""
    if failed.on_commit is None:
        return failed
    rows = [row for row in failed.rows if not row.durable]
    return _Submission(rows, _size(rows), None)


def _tell(group: list[_Submission], error: Exception | None) -> None:
    for submission in group:
        if submission.on_commit is not None:
            with suppress(RuntimeError):  # the loop that would have been told is closed
                submission.on_commit(error)
