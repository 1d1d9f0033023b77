"""Upstream answers made anew: the alias chain and the records asked for, nothing else, as dnspython would write it."""

from __future__ import annotations

import struct
from collections.abc import Callable
from ipaddress import ip_address

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from enforcer.flow import Address
from enforcer.resolver.answers import MAX_NEGATIVE_TTL, MAX_TTL, Unusable, keep_addresses, read_answer
from enforcer.resolver.cache import Entry
from enforcer.resolver.wire import Question, parse

NOW = 1000.0
SOA = "example. 3600 IN SOA ns.example. host.example. 1 2 3 4 300"


def asked(name: str = "db.example", kind: str = "A") -> Question:
    question = parse(dns.message.make_query(name, kind, use_edns=0).to_wire())
    assert isinstance(question, Question)
    return question


def reply(
    question: Question, *answer: str, authority: tuple[str, ...] = (), additional: tuple[str, ...] = (), rcode: int = 0
) -> bytes:
    """What an upstream would send: records as text, one RRset per line."""
    message = dns.message.make_query(question.text, question.type_text)
    message.flags |= dns.flags.QR | dns.flags.RA
    message.set_rcode(dns.rcode.Rcode(rcode))
    sections = ((message.answer, answer), (message.authority, authority), (message.additional, additional))
    for section, lines in sections:
        for line in lines:
            name, ttl, kind, *rest = line.replace(" IN ", " ").split(" ", 3)
            section.append(dns.rrset.from_text_list(name, int(ttl), "IN", kind, rest[0].split("|")))
    return message.to_wire(want_shuffle=False)


def read(question: Question, raw: bytes, special: Callable[[Address], bool] = lambda _address: False) -> Entry:
    return read_answer(question, raw, "3.120.0.53:53", special, NOW)


def expected(question: Question, *answer: str, authority: tuple[str, ...] = (), rcode: int = 0) -> bytes:
    """The same message as dnspython renders it, with id 0 and no OPT."""
    message = dns.message.from_wire(reply(question, *answer, authority=authority, rcode=rcode))
    message.use_edns(False)
    message.id = 0
    return message.to_wire(want_shuffle=False)


def test_an_answer_is_byte_for_byte_what_dnspython_writes() -> None:
    """Two addresses; their TTL is how long they are kept."""
    question = asked()
    lines = ("db.example. 60 A 3.120.0.10|3.120.0.11",)
    entry = read(question, reply(question, *lines))
    assert entry.full.wire == expected(question, *lines)
    assert (entry.full.records, entry.full.rcode, entry.stored, entry.expires) == (2, 0, NOW, NOW + 60)
    assert entry.full.addresses == (ip_address("3.120.0.10"), ip_address("3.120.0.11"))


def test_only_what_was_asked_for_is_passed_on() -> None:
    """Records of other names and types, glue and the authority section of a positive answer are left out."""
    question = asked()
    entry = read(
        question,
        reply(
            question,
            "db.example. 60 A 3.120.0.10",
            "evil.example. 60 A 52.0.0.10",
            "db.example. 60 TXT \"data\"",
            authority=("example. 60 NS ns.example.",),
            additional=("ns.example. 60 A 52.0.0.53",),
        ),
    )  # fmt: skip
    assert entry.full.wire == expected(question, "db.example. 60 A 3.120.0.10")


def test_aliases_are_followed_to_the_records() -> None:
    """The chain is kept in order, and the shortest TTL counts."""
    question = asked("www.example")
    lines = (
        "www.example. 300 CNAME lb.example.",
        "lb.example. 30 CNAME n1.cdn.example.",
        "n1.cdn.example. 60 A 3.120.0.10",
    )
    entry = read(question, reply(question, *reversed(lines)))
    assert entry.full.wire == expected(question, *lines)
    assert entry.names == ("lb.example", "n1.cdn.example")
    assert entry.expires == NOW + 30


@pytest.mark.parametrize(
    "lines",
    [
        ("a.example. 60 CNAME b.example.", "b.example. 60 CNAME a.example."),
        ("a.example. 60 CNAME a.example.",),
        tuple(f"{one}.example. 60 CNAME {chr(ord(one) + 1)}.example." for one in "abcdefghijklmnop"),
    ],
)
def test_aliases_without_an_end_are_no_answer(lines: tuple[str, ...]) -> None:
    """Loops and endless chains: another upstream may do better."""
    question = asked("a.example")
    with pytest.raises(Unusable):
        read(question, reply(question, *lines))


def test_a_name_that_does_not_exist_is_remembered_as_its_zone_says() -> None:
    """RFC 2308 section 5: the lesser of the SOA's TTL and its minimum, which is also what the client is told."""
    question = asked("nope.example")
    entry = read(question, reply(question, authority=(SOA,), rcode=3))
    assert entry.full.rcode == dns.rcode.NXDOMAIN
    assert entry.full.wire == expected(question, authority=(SOA.replace("3600", "300"),), rcode=3)
    assert entry.expires == NOW + 300


def test_a_name_without_records_of_the_type_is_remembered_too() -> None:
    """NODATA, behind an alias as well; its longest time is bounded."""
    question = asked("www.example", "AAAA")
    soa = SOA.replace(" 300", " 86400")
    entry = read(question, reply(question, "www.example. 7200 CNAME lb.example.", authority=(soa,)))
    assert entry.full.records == 1
    assert entry.expires == NOW + MAX_NEGATIVE_TTL


def test_without_its_soa_an_absence_is_not_remembered() -> None:
    """And an SOA of another zone is none."""
    question = asked("nope.example")
    assert read(question, reply(question, rcode=3)).expires == NOW
    other = SOA.replace("example. 3600", "elsewhere. 3600")
    entry = read(question, reply(question, authority=(other,), rcode=3))
    assert entry.expires == NOW
    assert entry.full.wire == expected(question, rcode=3)


def test_a_ttl_is_at_most_a_day() -> None:
    """Whatever the zone says."""
    question = asked()
    assert read(question, reply(question, "db.example. 2000000 A 3.120.0.10")).expires == NOW + MAX_TTL


@pytest.mark.parametrize("rcode", ["SERVFAIL", "REFUSED", "NOTIMP", "FORMERR"])
def test_an_error_of_the_upstream_is_no_answer(rcode: str) -> None:
    """Another one is asked."""
    question = asked()
    with pytest.raises(Unusable, match=rcode):
        read(question, reply(question, rcode=dns.rcode.from_text(rcode)))


def test_malformed_answers_are_no_answers() -> None:
    """Cut anywhere, with a pointer to itself, with bytes behind: never an exception of another kind."""
    question = asked()
    whole = reply(question, "db.example. 60 A 3.120.0.10")
    broken = [whole[:length] for length in range(12, len(whole))] + [whole + b"x"]
    loop = struct.pack(">6H", 0, 0x8180, 1, 1, 0, 0) + question.raw + b"\xc0\x1c" + whole[-14:]
    for raw in (*broken, loop):
        with pytest.raises(Unusable):
            read(question, raw)


@given(st.binary(max_size=200))
def test_random_answers_never_raise_anything_else(tail: bytes) -> None:
    """Bytes behind a fitting header and question are an answer or Unusable."""
    question = asked()
    raw = struct.pack(">6H", 0, 0x8180, 1, 1, 0, 0) + question.raw + tail
    try:
        read(question, raw)
    except Unusable:
        return


HTTPS = "1 . alpn=h2,h3 ipv4hint=3.120.0.10,52.0.0.10 {}ipv6hint=2a05:d014::10"


def test_encrypted_client_hello_is_taken_out() -> None:
    """RFC 9460 parameter 5 goes, also from the list of mandatory ones; everything else stays as it was."""
    question = asked("www.example", "HTTPS")
    with_ech = HTTPS.format("ech=AAT+DQAA ").replace("1 .", "1 . mandatory=alpn,ech")
    entry = read(question, reply(question, f"www.example. 60 HTTPS {with_ech}"))
    left = HTTPS.format("").replace("1 .", "1 . mandatory=alpn")
    assert entry.full.wire == expected(question, f"www.example. 60 HTTPS {left}")
    alone = HTTPS.format("ech=AAT+DQAA ").replace("1 .", "1 . mandatory=ech")
    entry = read(question, reply(question, f"www.example. 60 HTTPS {alone}"))
    assert entry.full.wire == expected(question, f"www.example. 60 HTTPS {HTTPS.format('')}")


def german(address: Address) -> bool:
    return str(address).startswith(("3.120.", "2a05:d014"))


def test_addresses_that_are_not_to_be_told_are_left_out() -> None:
    """A records go one by one; what is left hangs together with its aliases."""
    question = asked("www.example")
    lines = ("www.example. 300 CNAME lb.example.", "lb.example. 60 A 3.120.0.10|52.0.0.10|3.120.0.11")
    kept = keep_addresses(read(question, reply(question, *lines)).full.wire, german)
    assert kept.wire == expected(question, lines[0], "lb.example. 60 A 3.120.0.10|3.120.0.11")
    assert (kept.records, kept.dropped) == (3, (ip_address("52.0.0.10"),))


def test_hints_lose_their_addresses_too() -> None:
    """HTTPS records keep what may be reached; a hint without any address left goes as a whole (RFC 9460 7.3)."""
    question = asked("www.example", "HTTPS")
    entry = read(question, reply(question, f"www.example. 60 HTTPS {HTTPS.format('')}"))
    kept = keep_addresses(entry.full.wire, german)
    assert kept.wire == expected(
        question, "www.example. 60 HTTPS 1 . alpn=h2,h3 ipv4hint=3.120.0.10 ipv6hint=2a05:d014::10"
    )
    assert kept.dropped == (ip_address("52.0.0.10"),)
    none = keep_addresses(entry.full.wire, lambda _address: False)
    assert none.wire == expected(question, "www.example. 60 HTTPS 1 . alpn=h2,h3")
    assert none.addresses == ()


def test_an_answer_with_an_address_of_this_network_is_marked() -> None:
    """So that it is looked at for each executor, and not passed on from the cache as it is."""
    question = asked()
    raw = reply(question, "db.example. 60 A 3.120.0.10|10.0.0.5")
    assert read(question, raw, lambda address: address.is_private).special
    assert not read(question, raw).special
