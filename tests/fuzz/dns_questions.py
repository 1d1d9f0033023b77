"""What executors ask the resolver: a question that we take is the one that dnspython reads, and nothing beside it."""

from __future__ import annotations

from collections.abc import Iterator

import dns.message
import dns.rdatatype

from enforcer.resolver.wire import Fault, Question, build_answer, build_query, opt_record, parse, truncated
from tests.fuzz.target import Target


def judge(data: bytes) -> None:
    question = parse(data)
    if isinstance(question, Fault):
        if question.rcode is not None:
            answer = dns.message.from_wire(build_answer(question, question.rcode))
            assert answer.id == question.ident
        return
    _is_what_dnspython_reads(question, data)
    for answer in (build_answer(question, 3, text="no"), truncated(question, 0)):
        told = dns.message.from_wire(answer, question_only=False)
        assert (told.id, told.question) == (question.ident, dns.message.from_wire(data).question)
    # What goes upstream carries the name and the type; the rest is the same for every question.
    query = build_query(7, question.name, question.qtype)
    assert query == b"\0\7\1\0\0\1\0\0\0\0\0\1" + data[12 : 12 + len(question.name)].lower() + (
        question.qtype.to_bytes(2, "big") + b"\0\1" + opt_record()
    )
    assert parse(query) == Question(7, True, question.name, question.text, question.qtype, query[12:-11], True, 1232)


def _is_what_dnspython_reads(question: Question, data: bytes) -> None:
    message = dns.message.from_wire(data)
    (asked,) = message.question
    assert not message.answer
    assert not message.authority
    assert str(asked.name).lower().rstrip(".") == question.text, (asked.name, question.text)
    assert (message.id, int(asked.rdtype), message.edns >= 0) == (question.ident, question.qtype, question.edns)


def seeds() -> Iterator[bytes]:
    for name, kind, edns in (
        ("db.example.", "A", 0),
        ("x.", "HTTPS", None),
        (".", "NS", 0),
        ("1.0.0.127.in-addr.arpa.", "PTR", 0),
    ):
        yield dns.message.make_query(name, kind, use_edns=edns, payload=1232).to_wire()
    yield dns.message.make_query("db.example.", "AAAA", want_dnssec=True, pad=64).to_wire()
    yield b"\0\1\1\0\0\1\0\0\0\0\0\0\xc0\x0c\0\1\0\1"
    yield b"\0\1\1\0\0\2\0\0\0\0\0\0\1a\0\0\1\0\1\1b\0\0\1\0\1"


WORDS = (b"\xc0\x0c", b"\0\1\0\1", b"\0\0\x29", b"\7example\0", b"\x3f", b"\x40", b"\0\xff", b"\0\xfc", b"\1a\0", b".")
TARGET = Target("dns-questions", judge, seeds, WORDS)
