"""Step 4 of 6, inspect: what the values of a Redis reply are called, so that rules on columns find them.

Gets a command; hands on a plan that names each value by its place in the reply: `key`, or `key.field` of a hash or
stream. A value of which it is not known what it is has no name: every rule on columns hides it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

from enforcer.protocols.redis.commands import READ, Command


class Shape(Enum):
    """How the reply of a command is laid out."""

    ONE = auto()  # all of it under one name
    EACH = auto()  # one name for each element
    PAIRS = auto()  # names and values in turn, in the innermost list
    KEYED = auto()  # the first text is the key of the rest
    EXEC = auto()  # the replies of a transaction's commands
    SERIALIZED = auto()  # in Redis's own format, which may be compressed: never shown where anything is masked


@dataclass(slots=True)
class Frame:
    """A list that is being read: elements that are still to come, and how many came. `attribute`: it counts as none."""

    left: int
    index: int = 0
    attribute: bool = False


@dataclass(slots=True)
class Plan:
    """Names the values of one reply, in their order. `names`: see `Shape`. `last`: the text before. `numbers`: its
    integers are values, not counts. `inner`: the plans of a transaction's commands."""

    shape: Shape
    names: tuple[str, ...] = ("",)
    numbers: bool = False
    inner: list[Plan] = field(default_factory=list)
    last: str = ""

    def begin(self) -> None:
        """A reply begins: one plan may name several, of a subscription."""
        self.last = ""

    def column(self, stack: list[Frame], text: bytes, *, base: int = 0) -> str:
        """The name of the value `text`, which stands in the lists `stack`, outermost first."""
        if self.shape is Shape.EXEC:
            plan = self._of(stack)
            return plan.column(stack, text, base=base + 1) if plan is not None else ""
        if len(stack) <= base:
            return self.names[0] if self.shape in (Shape.ONE, Shape.EACH) else ""
        if self.shape is Shape.EACH:
            index = stack[base].index
            return self.names[index] if index < len(self.names) else ""
        if self.shape is Shape.KEYED:
            first = not self.last
            self.last = self.last or readable(text)
            return self.names[0] if first else self.last
        if self.shape is Shape.PAIRS:
            if stack[-1].index % 2 == 0:
                self.last = readable(text)
                return self.names[0]
            return f"{self.names[0]}.{self.last}" if self.names[0] else ""
        return self.names[0]

    def counts(self, stack: list[Frame]) -> bool:
        """Are integers here mere counts?"""
        if self.shape is Shape.EXEC:
            plan = self._of(stack)
            return plan is not None and plan.counts(stack[1:])
        return not self.numbers

    def serialized(self, stack: list[Frame]) -> bool:
        if self.shape is Shape.EXEC:
            plan = self._of(stack)
            return plan is not None and plan.serialized(stack[1:])
        return self.shape is Shape.SERIALIZED

    def _of(self, stack: list[Frame]) -> Plan | None:
        index = stack[0].index if stack else len(self.inner)
        return self.inner[index] if index < len(self.inner) else None


def readable(text: bytes) -> str:
    """A key or field as policies may name it. (NUL bytes join names.)"""
    return text.decode("utf-8", "backslashreplace").replace("\0", "\\x00")


_FIELDS: Final = frozenset(("HGET", "HMGET", "HINCRBY", "HINCRBYFLOAT"))
"""`HGET key field ...`: the fields are named."""
_LISTED_FIELDS: Final = frozenset(("HGETDEL", "HGETEX"))
"""`HGETDEL key FIELDS count field ...`."""
_PAIRS: Final = frozenset(("HGETALL", "HSCAN", "XRANGE", "XREVRANGE", "XREAD", "XREADGROUP", "XCLAIM", "XAUTOCLAIM"))
_KEYED: Final = frozenset(("BLPOP", "BRPOP", "BZPOPMIN", "BZPOPMAX", "LMPOP", "ZMPOP", "BLMPOP", "BZMPOP"))
_NUMBERS: Final = frozenset(
    ("INCR", "INCRBY", "DECR", "DECRBY", "HINCRBY", "BITFIELD", "BITFIELD_RO", "GETBIT", "SETBIT", "BITCOUNT", "BITPOS")
)
_NAMELESS: Final = frozenset(("HVALS", "SORT", "SORT_RO"))
_TOLD: Final = frozenset(
    (
        "AUTH",
        "CLIENT",
        "CLUSTER",
        "COMMAND",
        "CONFIG",
        "DBSIZE",
        "HELLO",
        "INFO",
        "KEYS",
        "LASTSAVE",
        "MEMORY",
        "MODULE",
        "OBJECT",
        "PING",
        "PUBSUB",
        "RANDOMKEY",
        "ROLE",
        "SCAN",
        "SELECT",
        "TIME",
        "TYPE",
        "XINFO",
    )
)
"""Commands that tell of the server or of names, never a value."""


def plan_of(command: Command, args: list[bytes]) -> Plan:
    """How the reply to `command` is named."""
    name, keys = command.name, command.keys
    word = name.partition(" ")[0]
    numbers = name in _NUMBERS or command.more
    if name == "XINFO STREAM":  # with its first and last entry, or all of them
        return _of_key(Shape.PAIRS, keys)
    if word in _TOLD:
        return Plan(Shape.ONE, (word.lower(),))
    if name in ("DUMP", "FUNCTION DUMP"):
        return Plan(Shape.SERIALIZED)
    if name == "HRANDFIELD" and len(args) > 3:
        return _of_key(Shape.PAIRS, keys)
    if name in _PAIRS:
        return _of_key(Shape.PAIRS, keys)
    if name in _FIELDS and len(args) > 2 and len(keys) == 1:
        fields = args[2:] if name == "HMGET" else args[2:3]
        return Plan(Shape.EACH, tuple(f"{readable(keys[0])}.{readable(one)}" for one in fields), numbers)
    if name in _LISTED_FIELDS and keys:
        words = [arg.upper() for arg in args]
        at = words.index(b"FIELDS") + 2 if b"FIELDS" in words else len(args)
        return Plan(Shape.EACH, tuple(f"{readable(keys[0])}.{readable(one)}" for one in args[at:]))
    if name == "MGET":
        return Plan(Shape.EACH, tuple(map(readable, keys)))
    if name in _KEYED:
        return Plan(Shape.KEYED, (word.lower(),))
    if name in _NAMELESS or command.more or (len(keys) != 1 and command.operation != READ):
        return Plan(Shape.ONE, ("",), numbers)
    return _of_key(Shape.ONE, keys, numbers=numbers)


def _of_key(shape: Shape, keys: tuple[bytes, ...], *, numbers: bool = False) -> Plan:
    """Under the name of the one key; under none where there are several."""
    return Plan(shape, (readable(keys[0]) if len(keys) == 1 else "",), numbers)
