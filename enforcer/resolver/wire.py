"""Step 4 of 6, inspect: what an executor may ask, byte by byte, and the bytes of what it is told.

RFC 1035, 6891 and 8914.

Gets one DNS message of an executor; hands on a `Question`, or a `Fault` for what is not exactly one plain question.
Never follows a compression pointer: a question needs none. What goes upstream is built anew from the question's name
and type alone (`build_query`), so nothing else that a client writes can leave.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from enum import IntEnum

HEADER = struct.Struct(">6H")
_TYPE_CLASS = struct.Struct(">HH")
# RFC 1035 section 2.3.4.
MAX_NAME, MAX_LABEL = 255, 63
# What fits every path without fragments: the DNS flag day 2020's advice. Also what we take from upstreams.
EDNS_SIZE = 1232
# RFC 1035 section 4.2.1: an answer by UDP to a client that says nothing of its own.
PLAIN_SIZE = 512
CLASS_IN = 1
# Letters, digits, hyphen and underscore. Anything else is no name of a host or service, and a way to carry data.
_PLAIN = re.compile(rb"[a-z0-9_.-]*")

QR, AA, TC, RD, RA, Z = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080, 0x0040
_OPCODE, _RCODE = 0x7800, 0x000F
_TYPE_OPT = 41
_OPTION_EDE = 15


class Rcode(IntEnum):
    NOERROR = 0
    FORMERR = 1
    SERVFAIL = 2
    NXDOMAIN = 3
    NOTIMP = 4
    REFUSED = 5
    BADVERS = 16


class Ede(IntEnum):
    """Extended DNS Errors (RFC 8914 section 4) that we send."""

    OTHER = 0
    BLOCKED = 15
    PROHIBITED = 18
    NO_AUTHORITY = 22
    NETWORK = 23


# Query types by number (IANA, Domain Name System Parameters): those that a configuration may let through. ANY, AXFR,
# IXFR, NULL and whatever is not here never pass.
TYPES: dict[int, str] = {
    1: "A",
    2: "NS",
    5: "CNAME",
    6: "SOA",
    12: "PTR",
    15: "MX",
    16: "TXT",
    28: "AAAA",
    29: "LOC",
    33: "SRV",
    35: "NAPTR",
    43: "DS",
    44: "SSHFP",
    48: "DNSKEY",
    52: "TLSA",
    64: "SVCB",
    65: "HTTPS",
    257: "CAA",
}
_OTHERS = {10: "NULL", 251: "IXFR", 252: "AXFR", 255: "ANY"}
NUMBERS: dict[str, int] = {name: number for number, name in TYPES.items()}


@dataclass(frozen=True, slots=True)
class Question:
    """One well-formed question. `name`: wire form in lower case, `text`: the same with dots and without the last one.

    `raw`: the question section as the client wrote it, for the answer. `edns`: it sent an OPT record; `size`: octets it
    takes in one datagram.
    """

    ident: int
    recursion: bool
    name: bytes
    text: str
    qtype: int
    raw: bytes
    edns: bool
    size: int

    @property
    def type_text(self) -> str:
        return TYPES.get(self.qtype) or _OTHERS.get(self.qtype, f"TYPE{self.qtype}")


@dataclass(frozen=True, slots=True)
class Fault:
    """A message that is no such question. `rcode` None: it is not answered. `raw`: its question, where there is one."""

    counter: str
    why: str
    rcode: Rcode | None = None
    ident: int = 0
    recursion: bool = False
    raw: bytes = b""
    edns: bool = False


def parse(data: bytes) -> Question | Fault:
    """Reads one message. Whatever is left over, doubled, compressed or of another kind is a fault."""
    if len(data) < HEADER.size:
        return Fault("MALFORMED", "shorter than a header")
    ident, flags, questions, answers, authorities, additionals = HEADER.unpack_from(data)
    if flags & QR:
        return Fault("NOT_A_QUERY", "an answer, not a query")
    recursion = bool(flags & RD)
    if flags & _OPCODE:
        return Fault("NOT_A_QUERY", f"opcode {(flags & _OPCODE) >> 11}", Rcode.NOTIMP, ident, recursion)
    if questions != 1:
        return Fault("NOT_ONE_QUESTION", f"{questions} questions", Rcode.FORMERR, ident, recursion)
    if flags & (AA | TC | RA | Z | _RCODE) or answers or authorities or additionals > 1:
        return Fault("MALFORMED", "flags or sections that no query has", Rcode.FORMERR, ident, recursion)
    end = _end_of_name(data)
    if not end or end + 4 > len(data):
        return Fault("MALFORMED", "a name that is none", Rcode.FORMERR, ident, recursion)
    name = data[12:end].lower()  # length octets are below 64, where no letters are
    qtype, qclass = _TYPE_CLASS.unpack_from(data, end)
    end += 4
    raw = data[12:end]
    size, edns = PLAIN_SIZE, additionals == 1
    if edns:
        version, size = _read_opt(data, end)
        if version < 0:
            return Fault("MALFORMED", "an additional record that is no OPT", Rcode.FORMERR, ident, recursion)
        if version > 0:
            return Fault("MALFORMED", f"EDNS version {version}", Rcode.BADVERS, ident, recursion, raw, edns=True)
    elif end != len(data):
        return Fault("MALFORMED", "bytes after the question", Rcode.FORMERR, ident, recursion)
    if qclass != CLASS_IN:
        return Fault("NOT_A_QUERY", f"class {qclass}", Rcode.REFUSED, ident, recursion, raw, edns)
    text = _dotted(name)
    if text is None:
        return Fault("NAME_FORM", "a name with unusual characters", Rcode.REFUSED, ident, recursion, raw, edns)
    return Question(ident, recursion, name, text, qtype, raw, edns, size)


def _end_of_name(data: bytes) -> int:
    """The offset behind the name at 12; 0 where it is none, is compressed or too long."""
    at, length = 12, len(data)
    while at < length:
        size = data[at]
        at += size + 1
        if size == 0:
            return at if at - 12 <= MAX_NAME else 0
        if size > MAX_LABEL:
            return 0
    return 0


def _read_opt(data: bytes, at: int) -> tuple[int, int]:
    """(version, size) of the OPT record that has to fill the rest; version -1 where it does not."""
    if len(data) < at + 11 or data[at] != 0:
        return -1, 0
    kind, size, _extended, version, _flags, length = struct.unpack_from(">HHBBHH", data, at + 1)
    at += 11
    if kind != _TYPE_OPT or at + length != len(data):
        return -1, 0
    while at < len(data):
        if at + 4 > len(data):
            return -1, 0
        at += 4 + int.from_bytes(data[at + 2 : at + 4], "big")
    if at != len(data):
        return -1, 0
    return version, min(max(size, PLAIN_SIZE), EDNS_SIZE)


def _dotted(name: bytes) -> str | None:
    labels = []
    at = 0
    while size := name[at]:
        labels.append(name[at + 1 : at + 1 + size])
        at += size + 1
    joined = b".".join(labels)
    if _PLAIN.fullmatch(joined) is None or joined.count(b".") != max(len(labels) - 1, 0):
        return None
    return joined.decode("ascii")


def wire_name(text: str) -> bytes:
    """The wire form of a dotted name of plain characters."""
    labels = [label.encode("ascii") for label in text.rstrip(".").split(".") if label]
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def build_query(ident: int, name: bytes, qtype: int) -> bytes:
    """Our own query: recursion desired, our EDNS size, no option, nothing of the client's but name and type."""
    opt = struct.pack(">BHHIH", 0, _TYPE_OPT, EDNS_SIZE, 0, 0)
    return HEADER.pack(ident, RD, 1, 0, 0, 1) + name + _TYPE_CLASS.pack(qtype, CLASS_IN) + opt


def opt_record(rcode: int = 0, ede: Ede | None = None, text: str = "") -> bytes:
    """Our OPT record, with an Extended DNS Error where there is one to tell. `rcode`: its upper bits go here."""
    option = b""
    if ede is not None:
        said = text.encode()[:400]
        option = struct.pack(">HHH", _OPTION_EDE, 2 + len(said), ede) + said
    return struct.pack(">BHHBBHH", 0, _TYPE_OPT, EDNS_SIZE, rcode >> 4, 0, 0, len(option)) + option


def build_answer(question: Question | Fault, rcode: int, ede: Ede | None = None, text: str = "") -> bytes:
    """An answer without records. The reason goes to clients that can take one."""
    flags = QR | RA | (RD if question.recursion else 0) | (rcode & _RCODE)
    count = 1 if question.raw else 0
    head = HEADER.pack(question.ident, flags, count, 0, 0, int(question.edns))
    return head + question.raw + (opt_record(rcode, ede, text) if question.edns else b"")


def truncated(question: Question, rcode: int) -> bytes:
    """Says that the answer is too large for a datagram: ask again over TCP."""
    flags = QR | RA | TC | (RD if question.recursion else 0) | rcode
    opt = opt_record() if question.edns else b""
    return HEADER.pack(question.ident, flags, 1, 0, 0, int(question.edns)) + question.raw + opt


def skip_name(wire: bytes, at: int) -> int:
    """The offset behind a name of a message that we rendered ourselves."""
    while size := wire[at]:
        if size >= 0xC0:
            return at + 2
        at += size + 1
    return at + 1


def ttl_offsets(wire: bytes) -> tuple[tuple[int, int], ...]:
    """(offset, value) of every TTL of a message that we rendered ourselves, with one question."""
    _, _, _, *counts = HEADER.unpack_from(wire)
    at = skip_name(wire, 12) + 4
    found = []
    for _ in range(sum(counts)):
        at = skip_name(wire, at) + 4
        found.append((at, int.from_bytes(wire[at : at + 4], "big")))
        at += 6 + int.from_bytes(wire[at + 4 : at + 6], "big")
    return tuple(found)
