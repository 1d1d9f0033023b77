"""What upstream resolvers answer: what executors are told is made anew, and holds what was asked for and no more.

An input: one byte that chooses the question, then the upstream's message.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address

import dns.message
import dns.rdataclass
import dns.rdatatype

from enforcer.resolver.answers import MAX_RECORDS, Unusable, keep_addresses, read_answer
from enforcer.resolver.wire import Question, parse, ttl_offsets
from tests.fuzz.target import Target, options

ASKED = (
    ("db.example.", "A"),
    ("db.example.", "AAAA"),
    ("db.example.", "HTTPS"),
    ("db.example.", "TXT"),
    ("db.example.", "CNAME"),
)


def judge(data: bytes) -> None:
    (number,), raw = options(data, 1)
    name, kind = ASKED[number % len(ASKED)]
    question = parse(dns.message.make_query(name, kind).to_wire())
    assert isinstance(question, Question)
    try:
        entry = read_answer(question, raw, "3.120.0.53:53", lambda address: address.is_private, 1000.0)
    except Unusable:
        return
    told = dns.message.from_wire(entry.full.wire)
    assert [str(one.name) for one in told.question] == [name]
    kinds = {one.rdtype for one in told.answer}
    assert kinds <= {dns.rdatatype.CNAME, dns.rdatatype.from_text(kind)}
    assert not told.additional
    assert sum(map(len, told.answer)) <= MAX_RECORDS
    assert {one.rdtype for one in told.authority} <= {dns.rdatatype.SOA}
    assert b"ech=" not in told.to_text().encode()
    listed = {ip_address(one.address) for rrset in told.answer for one in rrset if one.rdtype in (1, 28)}
    assert {one for one in listed if one.version == 4} <= set(entry.full.addresses)
    assert len(ttl_offsets(entry.full.wire)) == sum(len(rrset) for rrset in (*told.answer, *told.authority))
    assert entry.expires >= entry.stored
    kept = keep_addresses(entry.full.wire, lambda address: not address.is_private)
    assert not any(address.is_private for address in kept.addresses)
    assert set(kept.addresses) | set(kept.dropped) == set(entry.full.addresses)


def seeds() -> Iterator[bytes]:
    records = (
        "db.example. 300 IN A 3.120.0.10\ndb.example. 300 IN A 10.0.0.1",
        "db.example. 300 IN AAAA 2a05:d014::1",
        'db.example. 300 IN HTTPS 1 . alpn="h2" ech="AAT+DQAA" ipv4hint="3.120.0.10,10.0.0.1" mandatory="alpn,ech"',
        'db.example. 300 IN TXT "a" "b"',
        "db.example. 300 IN CNAME b.example.\nb.example. 60 IN A 3.120.0.11",
    )
    for number, (name, kind) in enumerate(ASKED):
        for lines in records:
            text = f"id 0\nopcode QUERY\nrcode NOERROR\nflags QR RD RA\n;QUESTION\n{name} IN {kind}\n;ANSWER\n{lines}\n"
            yield bytes([number]) + dns.message.from_text(text).to_wire()
        soa = "example. 3600 IN SOA ns.example. host.example. 1 2 3 4 300"
        text = f"id 0\nopcode QUERY\nrcode NXDOMAIN\nflags QR RD RA\n;QUESTION\n{name} IN {kind}\n;AUTHORITY\n{soa}\n"
        yield bytes([number]) + dns.message.from_text(text).to_wire()


WORDS = (
    b"\xc0\x0c",
    b"\0\1\0\1",
    b"\0\5\0\1",
    b"\0\x41\0\1",
    b"\0\6\0\1",
    b"\0\x1c\0\1",
    b"\0\x29",
    b"\2db\7example\0",
)
TARGET = Target("dns-answers", judge, seeds, WORDS)
