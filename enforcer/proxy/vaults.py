"""Step 4 of 6, inspect: pseudonyms of executors, kept where every worker finds them, and one that takes a dead one's
place.

Gets the file that the supervisor opened, and the deployment's keys; hands on a vault per executor. Each record is
sealed (AES-256-GCM); workers add theirs under a lock, and read what others added. What has expired is never given out
again, and is taken out of the file in time. A file that cannot be read or written refuses the message.
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

from enforcer.masking.errors import MaskError
from enforcer.masking.keys import Key, Keys
from enforcer.masking.pseudonyms import FULL, Entry

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

# Pseudonyms of one executor at a time, and bytes of the file: a thousand documents with tens of names each.
LIMIT = 65_536
FILE_LIMIT = 64 << 20
# Bytes of the file's head, by which its readers see that it was written anew.
HEAD = 16
# Seconds between two looks for what has expired, and in which the last number of an executor is known after that: who
# wrote a pseudonym down must not be told another's value for it.
PURGE = 600.0
REMEMBERED = 30 * 86400.0
_LENGTH = struct.Struct(">I")
_NONCE = 12
_IDENT = 6
_LONGEST_RECORD = 64 * 1024


@dataclass(slots=True)
class _Kept:
    """`kind`: of its pseudonym; empty where it only says how far an executor's numbers have gone."""

    entry: Entry
    kind: str
    expires: float

    def over(self, now: float) -> bool:
        """Is it to leave the file?"""
        return self.expires + (0.0 if self.kind else REMEMBERED) <= now


@dataclass(slots=True)
class _Drawer:
    """The pseudonyms of one executor."""

    by_number: dict[int, _Kept] = field(default_factory=dict)
    numbers: dict[tuple[str, str], int] = field(default_factory=dict)
    highest: int = 0


class Store:
    """The file behind `descriptor`. `clock`: seconds since 1970."""

    def __init__(self, descriptor: int, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.keys = Keys()
        self._file = descriptor
        self._drawers: dict[str, _Drawer] = {}
        self._head = b""
        self._read_to = 0
        self._ciphers: dict[str, AESGCM] = {}

    def vault(self, executor: str, expires: int) -> ExecutorVault:
        return ExecutorVault(self, executor, expires)

    def drawer(self, executor: str) -> _Drawer:
        """What is known of `executor`, with all that other workers have added. Raises MaskError."""
        with _readable():
            if os.fstat(self._file).st_size != self._read_to or os.pread(self._file, HEAD, 0) != self._head:
                with self._locked(fcntl.LOCK_SH):
                    self._catch_up()
        return self._drawers.setdefault(executor, _Drawer())

    @contextmanager
    def adding(self, executor: str) -> Iterator[_Drawer]:
        """The same, while nobody else adds any."""
        with _readable(), self._locked(fcntl.LOCK_EX):
            self._catch_up()
            if self._read_to >= FILE_LIMIT:
                self._rewrite()
            yield self._drawers.setdefault(executor, _Drawer())

    def add(self, executor: str, number: int, kept: _Kept) -> None:
        """Writes one record; within `adding`."""
        if self._read_to >= FILE_LIMIT:
            raise MaskError(FULL)
        sealed = self._sealed([executor, number, kept.kind, *kept.entry, kept.expires])
        if os.pwrite(self._file, sealed, self._read_to) != len(sealed):
            raise MaskError("the file of pseudonyms cannot be written; free some space")
        self._read_to += len(sealed)
        self._learn(executor, number, kept)

    def purge(self) -> None:
        """Takes what has expired out of memory and file. Raises MaskError."""
        with _readable(), self._locked(fcntl.LOCK_EX):
            self._catch_up()
            now = self.clock()
            if any(kept.over(now) for drawer in self._drawers.values() for kept in drawer.by_number.values()):
                self._rewrite()

    @contextmanager
    def _locked(self, how: int) -> Iterator[None]:
        fcntl.flock(self._file, how)
        try:
            yield
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def _catch_up(self) -> None:
        """Reads what was added. What a worker that died has written in part is written over."""
        head = os.pread(self._file, HEAD, 0)
        if len(head) < HEAD:
            self._begin()
            return
        if head != self._head:
            self._head, self._read_to = head, HEAD
            self._drawers.clear()
        size = os.fstat(self._file).st_size
        data = os.pread(self._file, size - self._read_to, self._read_to)
        at = 0
        while at + _LENGTH.size <= len(data):
            (length,) = _LENGTH.unpack_from(data, at)
            end = at + _LENGTH.size + length
            if length > _LONGEST_RECORD or end > len(data):
                break
            self._take(data[at + _LENGTH.size : end])
            at = end
        self._read_to += at

    def _begin(self) -> None:
        self._head, self._read_to = os.urandom(HEAD), HEAD
        self._drawers.clear()
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, self._head, 0)

    def _rewrite(self) -> None:
        """The file anew, without what has expired but for the numbers that executors have reached."""
        now = self.clock()
        kept = []
        for executor, drawer in self._drawers.items():
            for number, one in sorted(drawer.by_number.items()):
                if number == drawer.highest and one.expires <= now:
                    one = _Kept(Entry("", ""), "", one.expires)  # noqa: PLW2901 - what is left of it
                if not one.over(now):
                    kept.append((executor, number, one))
        self._begin()
        sealed = b"".join(
            self._sealed([executor, number, one.kind, *one.entry, one.expires]) for executor, number, one in kept
        )
        os.pwrite(self._file, sealed, HEAD)
        self._read_to = HEAD + len(sealed)
        for executor, number, one in kept:
            self._learn(executor, number, one)

    def _take(self, record: bytes) -> None:
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415 - only where there are pseudonyms to keep

        ident = record[:_IDENT].decode("ascii", "replace")
        key = next((one for one in self.keys.keys if one.ident == ident), None)
        if key is None:
            return  # of a key that was thrown away
        nonce, sealed = record[_IDENT : _IDENT + _NONCE], record[_IDENT + _NONCE :]
        try:
            plain: Any = orjson.loads(self._cipher(key).decrypt(nonce, sealed, record[:_IDENT]))
        except InvalidTag:
            raise MaskError("the file of pseudonyms is damaged; remove it and restart the enforcer") from None
        executor, number, kind, pseudonym, value, expires = plain
        self._learn(executor, number, _Kept(Entry(pseudonym, value), kind, expires))

    def _learn(self, executor: str, number: int, kept: _Kept) -> None:
        drawer = self._drawers.setdefault(executor, _Drawer())
        drawer.by_number[number] = kept
        drawer.numbers[kept.kind, kept.entry.value] = number
        drawer.highest = max(drawer.highest, number)

    def _sealed(self, plain: list[Any]) -> bytes:
        if not self.keys.keys:
            raise MaskError("there is no key to seal pseudonyms with; the supervisor makes one at its start")
        key = self.keys.keys[0]
        ident, nonce = key.ident.encode(), os.urandom(_NONCE)
        record = ident + nonce + self._cipher(key).encrypt(nonce, orjson.dumps(plain), ident)
        if len(record) > _LONGEST_RECORD:
            raise MaskError(f"a value of more than {_LONGEST_RECORD >> 10} KiB cannot be kept for a pseudonym")
        return _LENGTH.pack(len(record)) + record

    def _cipher(self, key: Key) -> AESGCM:
        known = self._ciphers.get(key.ident)
        if known is None:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415 - as above

            known = self._ciphers[key.ident] = AESGCM(key.derived("pseudonyms"))
        return known


@contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, TypeError) as error:
        raise MaskError(f"the file of pseudonyms cannot be used ({type(error).__name__})") from error


class ExecutorVault:
    """`masking.pseudonyms.Vault`, of one executor, for all its sessions."""

    def __init__(self, store: Store, executor: str, expires: int) -> None:
        self._store = store
        self._executor = executor
        self._expires = expires

    def pseudonym(self, kind: str, value: str, make: Callable[[int], str | None]) -> str:
        now = self._store.clock()
        known = self._known(self._store.drawer(self._executor), kind, value, make, now)
        if known is not None:
            return known
        with self._store.adding(self._executor) as drawer:
            known = self._known(drawer, kind, value, make, now)
            if known is not None:
                return known
            if sum(kept.expires > now for kept in drawer.by_number.values()) >= LIMIT:
                raise MaskError(FULL)
            number, made = drawer.highest, None
            while made is None:
                number += 1
                made = make(number)
            self._store.add(self._executor, number, _Kept(Entry(made, value), kind, now + self._expires))
            return made

    def entry(self, number: int) -> Entry | None:
        kept = self._store.drawer(self._executor).by_number.get(number)
        return kept.entry if kept is not None and kept.expires > self._store.clock() else None

    def highest(self) -> int:
        return self._store.drawer(self._executor).highest

    def _known(
        self, drawer: _Drawer, kind: str, value: str, make: Callable[[int], str | None], now: float
    ) -> str | None:
        """The pseudonym that there is, if it lives for half of its time yet: an answer may take a while."""
        number = drawer.numbers.get((kind, value), 0)
        kept = drawer.by_number.get(number)
        if kept is None or kept.expires - now < self._expires / 2 or make(number) != kept.entry.pseudonym:
            return None
        return kept.entry.pseudonym
