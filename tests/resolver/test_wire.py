"""The question parser: one plain question or nothing, checked against dnspython, tables of faults and random bytes."""

from __future__ import annotations

import struct
from typing import get_args

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import pytest
from hypothesis import given
from hypothesis import strategies as st

from enforcer.config import QueryType
from enforcer.resolver.wire import (
    EDNS_SIZE,
    NUMBERS,
    PLAIN_SIZE,
    Ede,
    Fault,
    Question,
    Rcode,
    build_answer,
    build_query,
    parse,
    truncated,
    wire_name,
)

NAME = b"\x02db\x07example\x00"
A_IN = b"\x00\x01\x00\x01"
OPT = b"\x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x00"


def header(flags: int = 0x0100, counts: tuple[int, int, int, int] = (1, 0, 0, 0), ident: int = 7) -> bytes:
    return struct.pack(">6H", ident, flags, *counts)


def test_a_question_as_dnspython_writes_it_is_read_whole() -> None:
    """Id, name in lower case, type, EDNS size; the question itself is kept as it was written."""
    query = dns.message.make_query("Db.EXAMPLE", "AAAA", use_edns=0, payload=4096)
    question = parse(query.to_wire())
    assert isinstance(question, Question)
    assert (question.ident, question.text, question.qtype) == (query.id, "db.example", 28)
    assert question.name == b"\x02db\x07example\x00"
    assert question.raw == b"\x02Db\x07EXAMPLE\x00\x00\x1c\x00\x01"
    assert (question.edns, question.size, question.recursion) == (True, EDNS_SIZE, True)


def test_without_edns_an_answer_is_small() -> None:
    """RFC 1035: 512 octets; and a client that says less than that gets that."""
    plain = parse(dns.message.make_query("db.example", "A", use_edns=False).to_wire())
    modest = parse(dns.message.make_query("db.example", "A", use_edns=0, payload=100).to_wire())
    assert isinstance(plain, Question)
    assert isinstance(modest, Question)
    assert (plain.size, plain.edns, modest.size, modest.edns) == (PLAIN_SIZE, False, PLAIN_SIZE, True)


# What a message is, its bytes, and what follows: the counter and the rcode, None for silence.
FAULTS: dict[str, tuple[bytes, str, Rcode | None]] = {
    "nothing": (b"", "MALFORMED", None),
    "half a header": (header()[:11], "MALFORMED", None),
    "an answer": (header(0x8180) + NAME + A_IN, "NOT_A_QUERY", None),
    "a notify": (header(0x2000) + NAME + A_IN, "NOT_A_QUERY", Rcode.NOTIMP),
    "an update": (header(0x2800) + NAME + A_IN, "NOT_A_QUERY", Rcode.NOTIMP),
    "no question": (header(counts=(0, 0, 0, 0)), "NOT_ONE_QUESTION", Rcode.FORMERR),
    "two questions": (header(counts=(2, 0, 0, 0)) + (NAME + A_IN) * 2, "NOT_ONE_QUESTION", Rcode.FORMERR),
    "an answer record": (header(counts=(1, 1, 0, 0)) + NAME + A_IN, "MALFORMED", Rcode.FORMERR),
    "an authority record": (header(counts=(1, 0, 1, 0)) + NAME + A_IN, "MALFORMED", Rcode.FORMERR),
    "two additional records": (header(counts=(1, 0, 0, 2)) + NAME + A_IN + OPT * 2, "MALFORMED", Rcode.FORMERR),
    "a truncated query": (header(0x0300) + NAME + A_IN, "MALFORMED", Rcode.FORMERR),
    "the reserved bit": (header(0x0140) + NAME + A_IN, "MALFORMED", Rcode.FORMERR),
    "an rcode in a query": (header(0x0103) + NAME + A_IN, "MALFORMED", Rcode.FORMERR),
    "a pointer to itself": (header() + b"\xc0\x0c" + A_IN, "MALFORMED", Rcode.FORMERR),
    "a pointer after a label": (header() + b"\x02db\xc0\x0c" + A_IN, "MALFORMED", Rcode.FORMERR),
    "an extended label": (header() + b"\x41x\x00" + A_IN, "MALFORMED", Rcode.FORMERR),
    "a name without an end": (header() + b"\x02db", "MALFORMED", Rcode.FORMERR),
    "a name of 256 octets": (header() + b"\x3f" + b"a" * 63 + (b"\x3f" + b"a" * 63) * 3 + b"\x00" + A_IN, "MALFORMED",
                             Rcode.FORMERR),
    "no type": (header() + NAME, "MALFORMED", Rcode.FORMERR),
    "bytes behind": (header() + NAME + A_IN + b"x", "MALFORMED", Rcode.FORMERR),
    "an OPT that is none": (header(counts=(1, 0, 0, 1)) + NAME + A_IN + b"\x00\x00\x01" + OPT[3:], "MALFORMED",
                            Rcode.FORMERR),
    "an OPT of a name": (header(counts=(1, 0, 0, 1)) + NAME + A_IN + b"\x01x" + OPT, "MALFORMED", Rcode.FORMERR),
    "an OPT cut short": (header(counts=(1, 0, 0, 1)) + NAME + A_IN + OPT[:-1], "MALFORMED", Rcode.FORMERR),
    "an option beyond its OPT": (header(counts=(1, 0, 0, 1)) + NAME + A_IN + OPT[:-2] + b"\x00\x04\x00\x0a\x00\x09",
                                 "MALFORMED", Rcode.FORMERR),
    "a signature behind": (header(counts=(1, 0, 0, 1)) + NAME + A_IN + OPT + b"x", "MALFORMED", Rcode.FORMERR),
    "EDNS version 1": (header(counts=(1, 0, 0, 1)) + NAME + A_IN + OPT[:6] + b"\x01" + OPT[7:], "MALFORMED",
                       Rcode.BADVERS),
    "class CHAOS": (header() + NAME + b"\x00\x10\x00\x03", "NOT_A_QUERY", Rcode.REFUSED),
    "class ANY": (header() + NAME + b"\x00\x01\x00\xff", "NOT_A_QUERY", Rcode.REFUSED),
    "a zero byte in a label": (header() + b"\x03d\x00b\x00" + A_IN, "NAME_FORM", Rcode.REFUSED),
    "a dot in a label": (header() + b"\x03d.b\x00" + A_IN, "NAME_FORM", Rcode.REFUSED),
    "a space in a label": (header() + b"\x03d b\x00" + A_IN, "NAME_FORM", Rcode.REFUSED),
    "a letter beyond ASCII": (header() + b"\x03d\xe4b\x00" + A_IN, "NAME_FORM", Rcode.REFUSED),
}  # fmt: skip


@pytest.mark.parametrize("what", FAULTS)
def test_whatever_is_not_one_plain_question_is_a_fault(what: str) -> None:
    """Each is named by a counter, and answered with the rcode the RFCs have for it, or not at all."""
    data, counter, rcode = FAULTS[what]
    fault = parse(data)
    assert isinstance(fault, Fault)
    assert (fault.counter, fault.rcode) == (counter, rcode)
    if rcode is not None:
        answer = dns.message.from_wire(build_answer(fault, rcode, Ede.PROHIBITED, fault.why))
        assert (answer.id, answer.rcode()) == (7, dns.rcode.from_text(rcode.name))


@given(st.binary(max_size=300))
def test_random_bytes_never_raise(data: bytes) -> None:
    """Every message is a question or a fault, whatever its bytes."""
    assert isinstance(parse(data), Question | Fault)


@given(st.binary(max_size=60), st.integers(0, 5), st.integers(0, 0xFFFF), st.integers(0, 2), st.integers(0, 1))
def test_what_is_accepted_is_what_dnspython_reads(
    tail: bytes, keep: int, flags: int, questions: int, extra: int
) -> None:
    """Bytes near to a question: where we take one, dnspython reads the same name and type from it, and nothing else."""
    body = (NAME + A_IN)[: len(NAME + A_IN) - keep] + tail
    data = header(flags & 0x7FFF if keep % 2 else flags, (questions, 0, 0, extra)) + body
    question = parse(data)
    if isinstance(question, Question):
        message = dns.message.from_wire(data)
        (asked,) = message.question
        assert asked.name.to_wire() is not None
        assert asked.name.canonicalize().to_wire() == question.name
        assert (int(asked.rdtype), int(asked.rdclass)) == (question.qtype, 1)
        assert not message.answer
        assert not message.authority


@given(st.lists(st.text("abcXYZ019-_", min_size=1, max_size=20), min_size=1, max_size=6), st.booleans())
def test_every_plain_name_is_accepted_as_dnspython_writes_it(labels: list[str], edns: bool) -> None:
    """Round trip: name and type come out as they went in, in lower case."""
    query = dns.message.make_query(".".join(labels), "TXT", use_edns=0 if edns else False)
    question = parse(query.to_wire())
    assert isinstance(question, Question)
    assert question.text == ".".join(labels).lower()
    assert question.name == wire_name(question.text)
    assert question.edns is edns


def test_our_query_is_what_dnspython_would_ask() -> None:
    """Recursion desired, EDNS of 1,232 octets, no option; byte for byte."""
    expected = dns.message.make_query("db.example", "HTTPS", use_edns=0, payload=EDNS_SIZE)
    expected.id = 4711
    assert build_query(4711, wire_name("db.example"), NUMBERS["HTTPS"]) == expected.to_wire()


def test_a_refusal_says_why_to_clients_that_can_take_it() -> None:
    """With EDNS an Extended DNS Error with its text (RFC 8914), without it none; the question comes back as written."""
    data = header(counts=(1, 0, 0, 1)) + b"\x02Db\x00" + A_IN + OPT
    question = parse(data)
    assert isinstance(question, Question)
    answer = dns.message.from_wire(build_answer(question, Rcode.NXDOMAIN, Ede.BLOCKED, "rule p/r"))
    assert answer.flags & 0xFFF0 == dns.flags.QR | dns.flags.RD | dns.flags.RA
    assert answer.rcode() == dns.rcode.NXDOMAIN
    assert answer.question[0].name == dns.name.from_text("Db")
    assert [(option.code, option.text) for option in answer.options] == [(15, "rule p/r")]  # type: ignore[attr-defined]
    bare = parse(header() + NAME + A_IN)
    assert isinstance(bare, Question)
    assert not dns.message.from_wire(build_answer(bare, Rcode.NXDOMAIN, Ede.BLOCKED, "rule p/r")).options


def test_a_truncated_answer_has_the_bit_and_nothing_else() -> None:
    """So that every client asks again over TCP."""
    question = parse(header() + NAME + A_IN)
    assert isinstance(question, Question)
    with pytest.raises(dns.message.Truncated):
        dns.message.from_wire(truncated(question, 0), raise_on_truncation=True)


def test_types_are_those_of_the_registry_and_of_the_configuration() -> None:
    """Numbers are IANA's, as dnspython has them; every type that may be configured has one."""
    assert {name: int(dns.rdatatype.from_text(name)) for name in NUMBERS} == NUMBERS
    assert set(get_args(QueryType)) == set(NUMBERS)
    assert not set(NUMBERS) & {"ANY", "AXFR", "IXFR", "NULL", "OPT"}
