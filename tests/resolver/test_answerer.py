"""Questions as an executor asks them: judged by name first, answered from upstreams or the cache, always on record."""

from __future__ import annotations

import asyncio
import socket
import struct

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rrset
import orjson
import pytest

from enforcer.policy.compiled import Policy, PolicySet
from enforcer.policy.destinations import parse_network
from enforcer.resolver import upstreams as upstreams_module
from enforcer.resolver.wire import Ede
from tests.resolver.stage import (
    DE,
    PRIVATE,
    US,
    Stage,
    Upstream,
    addresses,
    allow,
    awaited,
    deny,
    germany,
    rendered,
    told_why,
    until,
)


@awaited
async def test_an_answer_is_what_dnspython_expects_and_comes_from_the_cache_next_time() -> None:
    """Id, question in the client's own letters, records; the second answer counts its TTL down and asks nobody."""
    async with Stage(allow()) as stage:
        stage.upstream.zone["db.example."] = {"A": [DE]}
        query = dns.message.make_query("dB.eXample", "A", use_edns=0, payload=1232)
        first = await stage.send(query)
        assert first.rcode() == dns.rcode.NOERROR
        assert first.question[0].name.to_text() == "dB.eXample."
        expected = dns.message.make_response(query, recursion_available=True, our_payload=1232)
        expected.answer.append(dns.rrset.from_text("db.example.", 60, "IN", "A", DE))
        assert first.to_wire() == expected.to_wire()
        entry = stage.answerer._cache.get((b"\x02db\x07example\x00", 1))
        assert entry is not None
        entry.stored -= 10
        again = await stage.ask("db.example")
        assert (addresses(again), again.answer[0].ttl) == ([DE], 50)
        assert stage.upstream.asked == ["db.example. IN A"]
        assert (stage.counters["QUERIES"], stage.counters["CACHE_HITS"]) == (2, 1)


@awaited
async def test_every_question_is_on_record_before_its_answer() -> None:
    """Type, masked name, rcode, number of records, where the answer came from and which addresses were in it."""
    async with Stage(allow()) as stage:
        stage.upstream.zone["4111111111111111.example."] = {"A": [DE, US]}
        await stage.ask("4111111111111111.example")
        await stage.ask("nope.example", "AAAA")
        opening, first, second = stage.rows
        assert (opening["table"], opening["protocol"], opening["destination"]) == ("sessions", "dns", "any:53")
        assert (opening["executor_ident"], opening["action"], opening["rule"]) == ("agent-1", "allow", "let")
        assert (first["operation"], first["text"]) == ("A", "************1111.example")
        assert (first["status"], first["rows"], first["failed"]) == ("NOERROR", 2, False)
        server = f"127.0.0.1:{stage.upstream.port}"
        assert first["facts"] == {"from": server, "addresses": f"{DE}, {US}"}
        assert (second["operation"], second["status"], second["rows"]) == ("AAAA", "NXDOMAIN", 0)
        assert second["session"] == first["session"] == opening["id"]
        assert (first["exchange"], second["exchange"]) == (1, 2)


@awaited
async def test_a_denied_name_is_never_forwarded() -> None:
    """NXDOMAIN with the rule in an Extended DNS Error, a row with the denial, nothing upstream."""
    async with Stage(deny(hosts=frozenset({"evil.example"}), suffixes=(".evil.example",)), allow()) as stage:
        for name in ("evil.example", "a.EVIL.example"):
            answer = await stage.ask(name)
            assert answer.rcode() == dns.rcode.NXDOMAIN
            code, why = told_why(answer)
            assert code == Ede.BLOCKED
            assert "rule p/forbid" in why
        await stage.ask("fine.example")
        assert stage.upstream.asked == ["fine.example. IN A"]
        assert [(row["action"], row["rule"]) for row in stage.exchanges()] == [
            ("deny", "forbid"), ("deny", "forbid"), ("allow", "let"),
        ]  # fmt: skip
        assert stage.counters["REFUSED_NAME"] == 2


@awaited
async def test_only_types_of_the_list_pass() -> None:
    """ANY, AXFR, NULL, what nobody knows and what the operator left out are refused, and never forwarded."""
    async with Stage(allow(), types=("A", "TXT")) as stage:
        for kind in ("ANY", "NULL", "AAAA", "TYPE65280", "AXFR", "IXFR"):
            query = dns.message.make_query("db.example", "A", use_edns=0)
            query.question[0].rdtype = dns.rdatatype.RdataType.make(kind)
            answer = dns.message.from_wire(await stage.raw(query.to_wire(), 10), one_rr_per_rrset=True)
            assert answer.rcode() == dns.rcode.REFUSED
            assert told_why(answer)[0] == Ede.PROHIBITED
        assert stage.upstream.asked == []
        assert stage.counters["REFUSED_TYPE"] == 6


@awaited
async def test_nothing_of_the_clients_query_goes_upstream_but_name_and_type() -> None:
    """Its letters, its id, its cookie, its subnet, its flags: the upstream gets a query of ours."""
    async with Stage(allow()) as stage:
        query = dns.message.make_query("SeCreT.example", "A", use_edns=0, want_dnssec=True, options=[
            dns.edns.ECSOption("203.0.113.0", 24), dns.edns.GenericOption(10, b"12345678"),
        ])  # fmt: skip
        query.flags |= dns.flags.CD
        query.id = 0x4242
        await stage.send(query)
        (data,) = stage.upstream.queries
        seen = dns.message.from_wire(data)
        assert b"secret" in data
        assert (seen.flags, seen.ednsflags, seen.payload, list(seen.options)) == (dns.flags.RD, 0, 1232, [])
        others = [await stage.ask(f"n{number}.example") for number in range(3)]
        idents = {dns.message.from_wire(one).id for one in stage.upstream.queries}
        assert len(others) == 3
        assert len(idents) > 1


HOSTILE = {
    "two questions": struct.pack(">6H", 1, 0x100, 2, 0, 0, 0) + b"\x04leak\x00\x00\x01\x00\x01" * 2,
    "a compression loop": struct.pack(">6H", 1, 0x100, 1, 0, 0, 0) + b"\x04leak\xc0\x0c\x00\x01\x00\x01",
    "bytes behind": struct.pack(">6H", 1, 0x100, 1, 0, 0, 0) + b"\x04leak\x00\x00\x01\x00\x01leak",
    "an answer": struct.pack(">6H", 1, 0x8180, 1, 0, 0, 0) + b"\x04leak\x00\x00\x01\x00\x01",
    "an update": struct.pack(">6H", 1, 0x2800, 1, 0, 0, 0) + b"\x04leak\x00\x00\x01\x00\x01",
    "binary labels": struct.pack(">6H", 1, 0x100, 1, 0, 0, 0) + b"\x04\x00eak\x00\x00\x01\x00\x01",
    "a few bytes": b"leak",
}


@pytest.mark.parametrize("what", HOSTILE)
@awaited
async def test_hostile_messages_are_refused_counted_and_never_forwarded(what: str) -> None:
    """Each leaves one row that says what was wrong with it, and none of its bytes."""
    async with Stage(allow()) as stage:
        await stage.raw(HOSTILE[what])
        assert stage.upstream.asked == []
        (row,) = stage.exchanges()
        assert (row["action"], row["reason"], row["text"]) == ("deny", "protocol error", "")
        assert row["detail"]
        assert sum(count for name, count in stage.counters.items() if name.startswith("REFUSED_")) == 1


@awaited
async def test_tunnels_meet_limits() -> None:
    """Names over the limit of their zone are refused with the reason; those from the cache cost nothing."""
    async with Stage(allow(), names_per_minute=3) as stage:
        for number in range(3):
            await stage.ask(f"w{number}.tunnel.example")
        answer = await stage.ask("w3.tunnel.example")
        assert answer.rcode() == dns.rcode.REFUSED
        assert "more than 3 names of tunnel.example" in told_why(answer)[1]
        assert (await stage.ask("w0.tunnel.example")).rcode() == dns.rcode.NXDOMAIN
        assert len(stage.upstream.asked) == 3
        assert stage.exchanges()[3]["detail"].startswith("more than 3 names")


@awaited
async def test_while_the_recorder_fails_nothing_is_answered_or_forwarded() -> None:
    """SERVFAIL, from the cache as well."""
    async with Stage(allow()) as stage:
        await stage.ask("db.example")
        stage.journal.failing = "the disk is full"
        answers = [await stage.ask(name) for name in ("db.example", "other.example")]
        assert [one.rcode() for one in answers] == [dns.rcode.SERVFAIL] * 2
        assert len(stage.upstream.asked) == 1
        assert [row["reason"] for row in stage.exchanges()[1:]] == ["the recorder cannot write"] * 2


@awaited
async def test_a_durable_question_waits_for_the_disk() -> None:
    """Nothing goes upstream before its row is committed; when it cannot be, nothing ever does."""
    async with Stage(allow(durable=True), commits=False) as stage:
        seen: list[int] = []

        def commit(number: int) -> None:
            seen.append(len(stage.upstream.asked))
            stage._commit(number)

        stage.records.on_commit = commit
        assert (await stage.ask("db.example")).rcode() == dns.rcode.NXDOMAIN
        assert seen == [0]
        announced, outcome = stage.rows[1], stage.rows[3]
        assert (announced["table"], announced["durable"]) == ("exchanges", True)
        assert (outcome["table"], outcome["status"].split(";")[0]) == ("outcomes", "NXDOMAIN")
        stage.records.on_commit = lambda number: stage._commit(number, "no space left")
        assert (await stage.ask("other.example")).rcode() == dns.rcode.SERVFAIL
        assert stage.upstream.asked == ["db.example. IN A"]


@awaited
async def test_while_the_supervisor_is_behind_questions_wait() -> None:
    """Nothing is read until it has caught up; then they are answered."""
    async with Stage(allow()) as stage:
        stage.journal.pause_writing()
        waiting = asyncio.create_task(stage.ask("db.example"))
        await asyncio.sleep(0.05)
        assert stage.counters["QUERIES"] == 0
        stage.journal.resume_writing()
        assert (await waiting).rcode() == dns.rcode.NXDOMAIN


@awaited
async def test_strangers_answers_are_dropped_and_counted() -> None:
    """A wrong id and another question come first; the answer that counts is the true one."""

    def answers(upstream: Upstream, query: dns.message.Message, _stream: bool) -> list[bytes]:
        true = upstream.answer(query)
        wrong_id = upstream.answer(query)
        wrong_id.id = query.id ^ 1
        wrong_question = dns.message.make_response(dns.message.make_query("db.evil", "A", id=query.id))
        not_an_answer = query.to_wire()
        return [wrong_id.to_wire(), wrong_question.to_wire(), not_an_answer, b"short", true.to_wire()]

    async with Stage(allow()) as stage:
        stage.upstream.zone["db.example."] = {"A": [DE]}
        stage.upstream.answers = answers
        assert addresses(await stage.ask("db.example")) == [DE]
        counted = {name: count for name, count in stage.counters.items() if name.startswith("UPSTREAM_")}
        assert counted == {"UPSTREAM_WRONG_ID": 2, "UPSTREAM_WRONG_QUESTION": 1, "UPSTREAM_MALFORMED": 1}


@awaited
async def test_a_truncated_answer_is_asked_for_again_over_tcp() -> None:
    """And what is too large for the client's datagram tells it to do the same."""

    def answers(upstream: Upstream, query: dns.message.Message, stream: bool) -> bytes:
        made = upstream.answer(query)
        if not stream:
            made.answer.clear()
            made.flags |= dns.flags.TC
        return rendered(made)

    async with Stage(allow()) as stage:
        many = [f"3.120.1.{number}" for number in range(1, 120)]
        stage.upstream.zone["many.example."] = {"A": many}
        stage.upstream.answers = answers
        small = await stage.ask("many.example")
        assert small.flags & dns.flags.TC
        assert small.answer == []
        assert addresses(await stage.ask("many.example", tcp=True)) == many
        assert (stage.upstream.streams, stage.counters["UPSTREAM_TRUNCATED"], stage.counters["TRUNCATED"]) == (1, 1, 1)


@awaited
async def test_the_next_upstream_answers_when_one_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """One is silent, one says SERVFAIL, one knows; who answered is on record, and the silent one comes last now."""
    monkeypatch.setattr(upstreams_module, "TRY", 0.1)
    async with Stage(allow(), upstreams=3) as stage:
        silent, failing, knowing = stage.upstreams
        silent.silent = True

        def fail(upstream: Upstream, query: dns.message.Message, _stream: bool) -> bytes:
            made = upstream.answer(query)
            made.set_rcode(dns.rcode.SERVFAIL)
            return made.to_wire()

        failing.answers = fail
        knowing.zone["db.example."] = {"A": [DE]}
        assert addresses(await stage.ask("db.example")) == [DE]
        assert stage.exchanges()[0]["facts"]["from"] == f"127.0.0.1:{knowing.port}"
        asked = len(silent.asked)
        await stage.ask("other.example")
        assert len(silent.asked) == asked


@awaited
async def test_without_any_answer_the_client_is_told_which_kind_of_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody answers: network error. They answer with errors: no reachable authority. Both SERVFAIL and on record."""
    monkeypatch.setattr(upstreams_module, "TRY", 0.05)
    async with Stage(allow()) as stage:
        stage.upstream.silent = True
        answer = await stage.ask("db.example")
        assert (answer.rcode(), told_why(answer)[0]) == (dns.rcode.SERVFAIL, Ede.NETWORK)
        stage.upstream.silent = False
        stage.upstream.answers = lambda upstream, query, _stream: _refused(upstream, query)
        answer = await stage.ask("other.example")
        assert (answer.rcode(), told_why(answer)[0]) == (dns.rcode.SERVFAIL, Ede.NO_AUTHORITY)
        assert [(row["status"], row["failed"]) for row in stage.exchanges()] == [("SERVFAIL", True)] * 2
        asked = len(stage.upstream.asked)
        await stage.ask("other.example")
        assert len(stage.upstream.asked) == asked


def _refused(upstream: Upstream, query: dns.message.Message) -> bytes:
    made = upstream.answer(query)
    made.set_rcode(dns.rcode.REFUSED)
    return made.to_wire()


@awaited
async def test_a_slow_answer_has_its_question_on_record_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a moment the row leaves without an outcome, which follows, with the addresses."""
    monkeypatch.setattr(upstreams_module, "TRY", 0.5)
    async with Stage(allow()) as stage:
        stage.upstream.zone["db.example."] = {"A": [DE]}
        stage.upstream.silent = True
        waiting = asyncio.create_task(stage.ask("db.example"))
        await until(stage.exchanges)
        assert stage.exchanges()[0].get("status") is None
        stage.upstream.silent = False
        assert addresses(await waiting) == [DE]
        (outcome,) = [row for row in stage.rows if row["table"] == "outcomes"]
        assert outcome["status"].startswith("NOERROR; ")
        assert DE in outcome["status"]


@awaited
async def test_questions_for_the_same_are_asked_once() -> None:
    """However many wait."""
    async with Stage(allow()) as stage:
        stage.upstream.zone["db.example."] = {"A": [DE]}
        answers = await asyncio.gather(*(stage.ask("db.example") for _ in range(20)))
        assert [addresses(one) for one in answers] == [[DE]] * 20
        assert stage.upstream.asked == ["db.example. IN A"]


@awaited
async def test_addresses_of_this_network_are_not_told_for_names() -> None:
    """Rebinding: private, loopback and metadata addresses go, the rest stays; none left is an answer without any, that
    says why, and on record is what was left out."""
    async with Stage(allow()) as stage:
        stage.upstream.zone["mixed.example."] = {"A": [DE, PRIVATE, "127.0.0.1"]}
        stage.upstream.zone["inside.example."] = {"A": ["169.254.169.254"]}
        assert addresses(await stage.ask("mixed.example")) == [DE]
        answer = await stage.ask("inside.example")
        assert (answer.rcode(), answer.answer) == (dns.rcode.NOERROR, [])
        code, why = told_why(answer)
        assert (code, "169.254.169.254 (metadata)" in why) == (Ede.BLOCKED, True)
        assert stage.exchanges()[0]["facts"]["dropped"] == f"{PRIVATE} (private), 127.0.0.1 (loopback)"
        assert [(executor, address) for executor, address, *_ in stage.told()] == [(7, DE)]


@awaited
async def test_an_address_that_a_rule_names_is_told() -> None:
    """A private database by its name, where policy lets it be reached."""
    rule = allow(region_words=(), networks=(parse_network("10.0.0.0/24"),))
    async with Stage(rule) as stage:
        stage.upstream.zone["db.example."] = {"A": [PRIVATE, "10.0.1.5"]}
        assert addresses(await stage.ask("db.example")) == [PRIVATE]


@awaited
async def test_steering_keeps_addresses_at_home() -> None:
    """A name with replicas in two regions leads to the one that policy allows; with none there nowhere, and says so."""
    async with Stage(germany(), steer=True) as stage:
        stage.upstream.zone["www.example."] = {"CNAME": ["lb.example."]}
        stage.upstream.zone["lb.example."] = {"A": [US, DE]}
        stage.upstream.zone["us.example."] = {"A": [US]}
        assert addresses(await stage.ask("www.example")) == [DE]
        answer = await stage.ask("us.example")
        assert (answer.rcode(), answer.answer) == (dns.rcode.NOERROR, [])
        assert f"{US} (US)" in told_why(answer)[1]
        assert addresses(await stage.ask("www.example")) == [DE]
    async with Stage(germany()) as stage:
        stage.upstream.zone["www.example."] = {"A": [US, DE]}
        assert addresses(await stage.ask("www.example")) == [US, DE]


@awaited
async def test_an_alias_of_a_forbidden_name_is_forbidden() -> None:
    """The answer to an allowed name leads over one that a rule denies: nothing of it is told."""
    async with Stage(deny(suffixes=(".tracker.example",)), allow()) as stage:
        stage.upstream.zone["www.example."] = {"CNAME": ["x.tracker.example."]}
        stage.upstream.zone["x.tracker.example."] = {"A": [DE]}
        for _ in range(2):
            answer = await stage.ask("www.example")
            assert (answer.rcode(), answer.answer) == (dns.rcode.NXDOMAIN, [])
            assert "x.tracker.example" in told_why(answer)[1]
        assert {(row["action"], row["rule"]) for row in stage.exchanges()} == {("deny", "forbid")}
        assert stage.counters["REFUSED_NAME"] == 2
        assert stage.told() == []


@awaited
async def test_reverse_names_are_judged_by_their_address() -> None:
    """In a permitted region they are asked for; elsewhere, and where they are no address, they are not."""
    async with Stage(germany()) as stage:
        stage.upstream.zone["10.0.120.3.in-addr.arpa."] = {"PTR": ["db.example."]}
        answer = await stage.ask("10.0.120.3.in-addr.arpa", "PTR")
        assert str(answer.answer[0][0]) == "db.example."
        for name in ("10.0.0.52.in-addr.arpa", "5.0.0.10.in-addr.arpa", "120.3.in-addr.arpa", "secret.ip6.arpa"):
            assert (await stage.ask(name, "PTR")).rcode() == dns.rcode.NXDOMAIN
        assert stage.upstream.asked == ["10.0.120.3.in-addr.arpa. IN PTR"]


@awaited
async def test_localhost_is_answered_here() -> None:
    """RFC 6761: never asked for elsewhere."""
    async with Stage(allow()) as stage:
        assert addresses(await stage.ask("localhost")) == ["127.0.0.1"]
        assert addresses(await stage.ask("a.localhost", "AAAA")) == ["::1"]
        assert (await stage.ask("localhost", "TXT")).answer == []
        assert stage.upstream.asked == []


@awaited
async def test_a_reload_judges_names_anew() -> None:
    """What was answered from the cache is denied by the next generation, in a session of its own."""
    async with Stage(allow()) as stage:
        stage.upstream.zone["db.example."] = {"A": [DE]}
        assert addresses(await stage.ask("db.example")) == [DE]
        closed = Policy("p", False, ("*",), frozenset(), (deny(hosts=frozenset({"db.example"})), allow()))
        stage.generate(2, PolicySet.of((closed,)))
        assert (await stage.ask("db.example")).rcode() == dns.rcode.NXDOMAIN
        assert [row["table"] for row in stage.rows] == [
            "sessions", "exchanges", "session_ends", "sessions", "exchanges",
        ]  # fmt: skip


@awaited
async def test_observing_lets_names_pass_and_says_what_it_would_deny() -> None:
    """Recorded as observed denial; the answer comes."""
    async with Stage(deny(hosts=frozenset({"db.example"})), observe=True) as stage:
        stage.upstream.zone["db.example."] = {"A": [DE]}
        assert addresses(await stage.ask("db.example")) == [DE]
        (row,) = stage.exchanges()
        assert (row["action"], row["observed"], row["rule"]) == ("deny", True, "forbid")


@awaited
async def test_workers_know_a_name_before_its_client_does() -> None:
    """What is told is sent to workers first, once per name and address; a worker that comes later gets all of it."""
    async with Stage(allow()) as stage:
        stage.upstream.zone["db.example."] = {"A": [DE]}
        await stage.ask("db.example")
        ((executor, address, name, seconds),) = stage.told()
        assert (executor, address, name) == (7, DE, "db.example")
        assert seconds == pytest.approx(600, abs=5)
        await stage.ask("db.example")
        assert len(stage.told()) == 1
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours:
            stage.answerer.links.add(theirs)
            assert [row[:3] for row in orjson.loads(ours.recv(65536))] == [[7, DE, "db.example"]]
