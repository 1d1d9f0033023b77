"""Step 4 of 6, inspect: the client's half of a Redis connection: commands, one after another.

Gets the client's bytes; hands on each command as a Request, and nothing behind it before its verdict. Commands are
arrays of bulk strings (RESP, all versions); typed lines ("inline commands") are refused, for nobody but people at
telnet sends them, and a line has no certain end.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from enforcer.errors import LimitExceeded, ProtocolError
from enforcer.flow import Side
from enforcer.protocols.base import Request
from enforcer.protocols.body_facts import SEPARATOR
from enforcer.protocols.redis.columns import readable
from enforcer.protocols.redis.commands import Command, command_of
from enforcer.protocols.redis.conversation import SUBSCRIBING, UNSUBSCRIBING, Conversation
from enforcer.protocols.redis.texts import describe
from enforcer.protocols.statement_facts import COMMAND, DATABASE, LIST_LIMIT, OPERATION, TABLE, USER
from enforcer.protocols.unread import Unread

MAX_REQUEST: Final = 16 << 20
"""Bytes of a command, which is held whole for its verdict. Redis takes bulk strings of 512 MiB; values of more than
some MiB are rare, for they stall its one thread."""

MAX_ARGUMENTS: Final = 100_000
"""Of one command; Redis takes 1,048,576, and each takes some fifty bytes here beside its own."""

MAX_AHEAD: Final = MAX_REQUEST + (1 << 20)
"""Bytes that may pile up behind a command that waits for its verdict."""

ANY: Final = "*"
"""Stands among a command's keys for all those that it may reach without naming them."""

_HEADER_LIMIT: Final = 12
"""Characters of `*` or `$` and a count."""
_STRING, _ZERO = b"$0"
_COUNT: Final = re.compile(rb"[1-9][0-9]{0,9}|0")
_FAULTS: Final = {
    "MONITOR": "MONITOR shows what others send, and is not inspected",
    "SYNC": "replication is not inspected",
    "PSYNC": "replication is not inspected",
    "REPLCONF": "replication is not inspected",
}
_UNMATCHED: Final = "replies that are switched off cannot be matched with commands; leave CLIENT REPLY on"
_IN_MULTI: Final = "a subscription in a transaction is not inspected"


@dataclass(slots=True)
class Asked:
    """A command under judgement."""

    request: Request
    command: Command
    args: list[bytes]


class ClientHalf:
    """Parser of the client's side. `asked` is what waits for its verdict."""

    def __init__(self, conversation: Conversation) -> None:
        self.asked: Asked | None = None
        self._conversation = conversation
        self._unread = Unread(Side.CLIENT)
        self._exchanges = 0
        self._missing = 0  # arguments of the command that is being read
        self._args: list[bytes] = []
        self._size = 0
        self._length = -1  # of the argument that is being read
        self._origin, self._start = b"", 0  # where the command begins

    def receive(self, data: bytes) -> None:
        """Keeps bytes until they are read. Raises LimitExceeded when too many come while a command is judged."""
        self._unread.feed(data)
        if self.asked is not None and self._unread.size > MAX_AHEAD:
            raise LimitExceeded(Side.CLIENT, f"over {MAX_AHEAD} bytes were sent while a command is judged")

    def advance(self) -> None:
        """Reads on until a command has to be judged or bytes are missing. Raises ProtocolError, LimitExceeded."""
        while self.asked is None and self._read():
            pass

    def _read(self) -> bool:
        if not self._missing:
            self._origin, self._start = self._unread.data, self._unread.pos
            count = self._count(b"*"[0])
            if count < 0:
                return False
            if not count:
                raise ProtocolError(Side.CLIENT, "a command without a name")
            if count > MAX_ARGUMENTS:
                raise LimitExceeded(Side.CLIENT, f"a command of {count} arguments is over the limit of {MAX_ARGUMENTS}")
            self._missing, self._args, self._size = count, [], 0
        unread = self._unread
        while self._missing:
            if self._length < 0 and self._take_short():
                continue
            if self._length < 0:
                self._length = self._count(b"$"[0])
                if self._length < 0:
                    return False
                self._size += self._length
                if self._size > MAX_REQUEST:
                    raise LimitExceeded(
                        Side.CLIENT, f"a command of {self._size} bytes is over the limit of {MAX_REQUEST}"
                    )
            if not unread.has(self._length + 2):
                return False
            end = unread.pos + self._length
            if unread.data[end : end + 2] != b"\r\n":
                raise ProtocolError(Side.CLIENT, "an argument is longer than it says")
            self._args.append(unread.data[unread.pos : end])
            unread.pos = end + 2
            self._length = -1
            self._missing -= 1
        # Bytes that were joined meanwhile are others; what is written anew is the same as what was read.
        whole = self._origin is unread.data
        self._ask(self._args, unread.data[self._start : unread.pos] if whole else encode(self._args))
        self._origin = b""
        return True

    def _take_short(self) -> bool:
        """Hot path: an argument of fewer than 1000 bytes that is there as a whole. What is less plain is left."""
        unread = self._unread
        data, start = unread.data, unread.pos
        end = data.find(b"\r\n", start + 2, start + 6)
        if end < 0 or data[start] != _STRING:
            return False
        text = data[start + 1 : end]
        if not text.isdigit() or (text[0] == _ZERO and end - start > 2):
            return False
        size = int(text)
        stop = end + 2 + size
        if data[stop : stop + 2] != b"\r\n" or self._size + size > MAX_REQUEST:
            return False
        self._args.append(data[end + 2 : stop])
        unread.pos = stop + 2
        self._size += size
        self._missing -= 1
        return True

    def _count(self, kind: int) -> int:
        """The count behind `kind`, which must come next; -1 while it is not there."""
        unread = self._unread
        if not unread.has(1):
            return -1
        if unread.data[unread.pos] != kind:
            raise ProtocolError(Side.CLIENT, "inline commands are not inspected; send arrays of bulk strings")
        end = unread.line_end(_HEADER_LIMIT)
        if end < 0:
            return -1
        text = unread.data[unread.pos + 1 : end]
        if not _COUNT.fullmatch(text):
            raise ProtocolError(Side.CLIENT, "a count is no plain number")
        unread.pos = end + 2
        return int(text)

    def _ask(self, args: list[bytes], raw: bytes) -> None:
        self._exchanges += 1
        command = command_of(args)
        request = Request(
            self._exchanges,
            command.name,
            describe(command, args),
            raw,
            facts=self._facts(command, args),
            tunnel=_elsewhere(command, args),
            fault=self._fault(command, args),
        )
        self.asked = Asked(request, command, args)
        self._conversation.emit(request)

    def _facts(self, command: Command, args: list[bytes]) -> dict[str, str]:
        """Of a command that is of the connection itself, only whom it logs in as and which database it selects."""
        user, others = user_of(command, args), other_databases(command, args)
        if not command.operation:
            return {**({USER: user} if user else {}), **({DATABASE: others[0]} if others else {})}
        conversation = self._conversation
        facts = {
            COMMAND: command.name,
            OPERATION: command.operation,
            DATABASE: SEPARATOR.join(sorted(conversation.database.values().union(others))),
            USER: SEPARATOR.join(sorted(conversation.user.values())),
        }
        names = [readable(key) for key in dict.fromkeys(command.keys)]
        joined = SEPARATOR.join(names)
        if command.more or len(joined) > LIST_LIMIT or any(SEPARATOR in name for name in names):
            joined = f"{joined}{SEPARATOR}{ANY}" if len(joined) <= LIST_LIMIT and names else ANY
        if joined:
            facts[TABLE] = joined
        return facts

    def _fault(self, command: Command, args: list[bytes]) -> str:
        if command.name == "CLIENT REPLY" and [arg.upper() for arg in args[2:]] != [b"ON"]:
            return _UNMATCHED
        if self._conversation.multi and (command.name in SUBSCRIBING or command.name in UNSUBSCRIBING):
            return _IN_MULTI
        return _FAULTS.get(command.name, "")


def encode(args: list[bytes]) -> bytes:
    """A command as clients write it; of one that was read, the very bytes."""
    parts = [b"*%d\r\n" % len(args)]
    for arg in args:
        parts += (b"$%d\r\n" % len(arg), arg, b"\r\n")
    return b"".join(parts)


def user_of(command: Command, args: list[bytes]) -> str:
    """Whom a command logs in as; empty where it does not."""
    if command.name == "AUTH":
        return readable(args[1]) if len(args) > 2 else "default"
    if command.name == "HELLO":
        words = [arg.upper() for arg in args]
        at = words.index(b"AUTH", 2) + 1 if b"AUTH" in words[2:] else len(args)
        return readable(args[at]) if at < len(args) else ""
    return ""


def other_databases(command: Command, args: list[bytes]) -> list[str]:
    """Databases that a command selects, or reaches besides the selected one."""
    if command.name == "SELECT":
        return [readable(arg) for arg in args[1:2]]
    if command.name == "MOVE":
        return [readable(arg) for arg in args[2:3]]
    if command.name == "SWAPDB":
        return [readable(arg) for arg in args[1:3]]
    if command.name == "COPY":
        return [readable(args[at + 1]) for at in range(3, len(args) - 1) if args[at].upper() == b"DB"]
    return []


def _elsewhere(command: Command, args: list[bytes]) -> tuple[str, int] | None:
    """Host and port that the server is asked to connect to: its data would go there."""
    at = 0
    if command.name in ("MIGRATE", "REPLICAOF", "SLAVEOF"):
        at = 1
    elif command.name == "CLUSTER MEET":
        at = 2
    elif command.name == "SENTINEL" and len(args) > 2 and args[1].upper() == b"MONITOR":
        at = 3
    elif command.name == "FAILOVER":
        words = [arg.upper() for arg in args]
        at = words.index(b"TO") + 1 if b"TO" in words else 0
    host, port = args[at : at + 1], args[at + 1 : at + 2]
    if not at or not port or [host[0].upper(), port[0].upper()] == [b"NO", b"ONE"]:
        return None
    return readable(host[0]), int(port[0]) if port[0].isdigit() and len(port[0]) < 6 else 0
