"""The resolver on a stage: real parser, policy, cache, records and sockets on 127.0.0.1; upstreams that tests write.

async with Stage(allow_all()) as stage:
    stage.upstream.zone["db.example."] = {"A": ["3.120.0.10"]}
    answer = await stage.ask("db.example")
    assert stage.upstream.asked == ["db.example. IN A"]
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import Counter
from collections.abc import Callable, Coroutine
from functools import wraps
from ipaddress import ip_address
from typing import Any, Self

import dns.asyncquery
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
import orjson

from enforcer.child import Generation
from enforcer.config import Resolver
from enforcer.flow import Address, Executor, Region
from enforcer.masking.masker import masker_for
from enforcer.policy.compiled import Policy, PolicySet, Rule
from enforcer.proxy.journal import Journal
from enforcer.resolver.answerer import Answerer
from enforcer.resolver.records import Origin, Sessions
from enforcer.resolver.serve import Datagrams, Stream
from enforcer.verdict import Action, MaskSpec
from tests.proxy.stage import PATIENCE, RecordWire

EXECUTOR = Executor("agent-1", "agent", 1000, "runner", 7)
DE, US, PRIVATE = "3.120.0.10", "52.0.0.10", "10.0.0.5"
REGIONS = {
    "3.120.": Region(frozenset({"DE"}), "country", "3.120.0.0/14", "test"),
    "2a05:d014:": Region(frozenset({"DE"}), "country", "2a05:d014::/36", "test"),
    "52.": Region(frozenset({"US"}), "country", "52.0.0.0/12", "test"),
    "10.": Region(frozenset(), "private", "10.0.0.0/8", "test"),
    "127.": Region(frozenset(), "loopback", "127.0.0.0/8", "test"),
    "169.254.": Region(frozenset(), "metadata", "169.254.169.254/32", "test"),
}
UNKNOWN = Region(frozenset(), "unknown", "0.0.0.0/0", "")


class Table:
    """A geography table of a few prefixes."""

    version = "table-1"

    def lookup(self, address: Address) -> Region:
        return next((region for prefix, region in REGIONS.items() if str(address).startswith(prefix)), UNKNOWN)


def allow(**conditions: Any) -> Rule:
    """Everything in any known region, unless told otherwise."""
    return Rule("let", Action.ALLOW, **({"region_words": ("*",)} | conditions))


def deny(name: str = "forbid", **conditions: Any) -> Rule:
    return Rule(name, Action.DENY, **conditions)


def germany(**conditions: Any) -> Rule:
    return allow(region_words=("DE",), regions=frozenset({"DE"}), **conditions)


Answers = Callable[["Upstream", dns.message.Message, bool], "bytes | list[bytes]"]


def both_kinds() -> tuple[socket.socket, socket.socket, int]:
    """A TCP and a UDP socket on one free port of 127.0.0.1."""
    while True:
        stream = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        stream.bind(("127.0.0.1", 0))
        port = stream.getsockname()[1]
        try:
            datagrams.bind(("127.0.0.1", port))
        except OSError:  # somebody else's
            stream.close()
            datagrams.close()
            continue
        return stream, datagrams, port


class Upstream:
    """A name server on 127.0.0.1, UDP and TCP on one port. `asked`: every question that came in, as text; `queries`:
    their bytes. `zone`: records by name and type; `answers`: replaces what it says. `silent`: says nothing."""

    def __init__(self) -> None:
        self.zone: dict[str, dict[str, list[str]]] = {}
        self.asked: list[str] = []
        self.queries: list[bytes] = []
        self.streams = 0
        self.silent = False
        self.answers: Answers | None = None

    async def open(self, *, tls: Any = None) -> Self:
        loop = asyncio.get_running_loop()
        stream, self._socket, self.port = both_kinds()
        self._server = await asyncio.start_server(self._stream, sock=stream, ssl=tls)
        loop.add_reader(self._socket, self._datagram)
        return self

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()
        self._server.close()

    def _datagram(self) -> None:
        data, client = self._socket.recvfrom(4096)
        for answer in self._answer(data, stream=False):
            self._socket.sendto(answer, client)

    async def _stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.streams += 1
        try:
            while True:
                length = int.from_bytes(await reader.readexactly(2), "big")
                for answer in self._answer(await reader.readexactly(length), stream=True):
                    writer.write(struct.pack(">H", len(answer)) + answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    def _answer(self, data: bytes, *, stream: bool) -> list[bytes]:
        query = dns.message.from_wire(data)
        self.queries.append(data)
        self.asked.append(query.question[0].to_text())
        if self.silent:
            return []
        made = self.answers(self, query, stream) if self.answers else rendered(self.answer(query))
        return [made] if isinstance(made, bytes) else made

    def answer(self, query: dns.message.Message) -> dns.message.Message:
        """What the zone says; NXDOMAIN with the zone's SOA for what is not there."""
        made = dns.message.make_response(query)
        made.flags |= dns.flags.RA
        (question,) = query.question
        name = question.name.to_text().lower()
        while name in self.zone:
            records = self.zone[name]
            alias = records.get("CNAME")
            kind = dns.rdatatype.to_text(question.rdtype)
            chosen = kind if kind in records else "CNAME"
            if chosen in records:
                made.answer.append(dns.rrset.from_text_list(name, 60, "IN", chosen, records[chosen]))
            if chosen != "CNAME" or alias is None:
                return made
            name = alias[0]
        if name == question.name.to_text().lower():
            made.set_rcode(dns.rcode.NXDOMAIN)
            made.authority.append(dns.rrset.from_text("example.", 60, "IN", "SOA", "ns.example. h.example. 1 2 3 4 60"))
        return made


class Stage:
    """One executor, its way in over UDP and TCP, and upstreams. `rows`: what was recorded, in order."""

    def __init__(self, *rules: Rule, observe: bool = False, upstreams: int = 1, commits: bool = True, **settings: Any):
        self.policies = PolicySet.of((Policy("p", observe, ("*",), frozenset(), rules),))
        self.settings = Resolver(**settings)
        self.upstreams = [Upstream() for _ in range(upstreams)]
        self.counters: Counter[str] = Counter()
        self.records = RecordWire()
        self.pushed: list[list[Any]] = []
        if commits:
            self.records.on_commit = self._commit

    @property
    def upstream(self) -> Upstream:
        return self.upstreams[0]

    @property
    def rows(self) -> list[dict[str, Any]]:
        self.journal.flush()
        return self.records.lines

    def exchanges(self) -> list[dict[str, Any]]:
        return [row for row in self.rows if row.get("table") == "exchanges"]

    def _commit(self, number: int, error: str = "") -> None:
        line = orjson.dumps({"commit": number, "error": error}) + b"\n"
        asyncio.get_running_loop().call_soon(self.journal.data_received, line)

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self.faults: list[Any] = []
        loop.set_exception_handler(lambda _loop, context: self.faults.append(context))
        for upstream in self.upstreams:
            await upstream.open()
        self.journal = Journal(lambda: None)
        self.journal.connection_made(self.records)
        self.answerer = Answerer(loop, self.journal, self.counters)
        self.servers = [("127.0.0.1", upstream.port, "") for upstream in self.upstreams]
        self.generate(1, self.policies)
        self.link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.link.setblocking(False)
        self.answerer.links.add(theirs)
        stream, inside, self.port = both_kinds()
        asker = self.answerer.asker(EXECUTOR)
        self.datagrams = Datagrams(
            [inside], asker, Sessions(Origin(EXECUTOR), self.journal), self.answerer, self.journal
        )
        self.streams: set[Stream] = set()
        origin = Origin(EXECUTOR, DE, Table().lookup(ip_address(DE)))
        self._server = await loop.create_server(
            lambda: Stream(asker, Sessions(origin, self.journal), self.answerer, self.streams), sock=stream
        )
        return self

    async def __aexit__(self, *_failure: object) -> None:
        self._server.close()
        for stream in list(self.streams):
            stream.close()
        self.datagrams.close("over")
        for upstream in self.upstreams:
            upstream.close()
        self.link.close()
        await asyncio.sleep(0)
        assert not self.faults, f"errors that nobody handled: {self.faults}"

    def generate(self, number: int, policies: PolicySet, **changes: Any) -> None:
        """Puts a generation in force."""
        settings = self.settings.model_dump(include={"types", "steer", "cache_bytes", "names_per_minute"})
        resolver = settings | {"upstreams": self.servers} | changes
        masker = masker_for(MaskSpec(detectors=("credit_card", "email")))
        table: Any = Table()
        self.answerer.take_generation(Generation(policies, table, masker, number, {"resolver": resolver}))

    async def ask(self, name: str, kind: str = "A", *, tcp: bool = False, **options: Any) -> dns.message.Message:
        query = dns.message.make_query(name, kind, **({"use_edns": 0, "payload": 1232} | options))
        return await self.send(query, tcp=tcp)

    async def send(self, query: dns.message.Message, *, tcp: bool = False) -> dns.message.Message:
        how = dns.asyncquery.tcp if tcp else dns.asyncquery.udp
        return await how(query, "127.0.0.1", PATIENCE, self.port)

    async def raw(self, data: bytes, patience: float = 0.2) -> bytes:
        """Sends bytes in one datagram; empty when nothing comes back within `patience`."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
            sock.connect(("127.0.0.1", self.port))
            sock.send(data)
            try:
                async with asyncio.timeout(patience):
                    return await asyncio.get_running_loop().sock_recv(sock, 4096)
            except TimeoutError:
                return b""

    def told(self) -> list[list[Any]]:
        """What a worker was told so far: executor, address, name, seconds."""
        while True:
            try:
                self.pushed += orjson.loads(self.link.recv(65536))
            except BlockingIOError:
                return self.pushed


def rendered(message: dns.message.Message) -> bytes:
    """Of any size, whatever the client said it takes."""
    return message.to_wire(max_size=65535, want_shuffle=False)


async def until(condition: Callable[[], object]) -> None:
    """Lets time pass until `condition` holds."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - what is waited for tells nobody
            await asyncio.sleep(0.005)


def awaited(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Runs a test in an event loop of its own."""

    @wraps(test)
    def run(**fixtures: Any) -> None:
        asyncio.run(test(**fixtures))

    return run


def addresses(message: dns.message.Message) -> list[str]:
    return [rdata.address for rrset in message.answer for rdata in rrset if hasattr(rdata, "address")]


def told_why(message: dns.message.Message) -> tuple[int, str]:
    """The Extended DNS Error."""
    (option,) = [option for option in message.options if option.otype == 15]
    return int(option.code), str(option.text)  # type: ignore[attr-defined]
