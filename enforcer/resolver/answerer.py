"""The conductor of the resolver: inspect, decide, forward, record. The one place where that order is written.

Gets a message of an executor; asks policy for a verdict on the name before anything of it goes anywhere; answers from
the cache, or has upstreams asked; keeps from the executor what it may not be told; records each question before its
answer leaves. Whatever is not allowed is answered with why (RFC 8914).
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from enforcer.child import Generation
from enforcer.flow import Address, Executor
from enforcer.policy.engine import is_host
from enforcer.policy.names import PUBLIC, forbids_name, is_reverse, judge_address, judge_name, reverse_address
from enforcer.proxy.journal import Journal
from enforcer.resolver.answers import FAILURE_TTL, Unusable, keep_addresses, local_answer, read_answer
from enforcer.resolver.cache import Cache, Entry, View
from enforcer.resolver.limits import Limits
from enforcer.resolver.records import Exchange, Sessions
from enforcer.resolver.told import Links
from enforcer.resolver.upstreams import NoAnswer, Server, Upstreams
from enforcer.resolver.wire import (
    HEADER,
    NUMBERS,
    QR,
    RA,
    RD,
    Ede,
    Fault,
    Question,
    Rcode,
    build_answer,
    opt_record,
    parse,
    truncated,
)
from enforcer.verdict import Action, Reason, Verdict

# Names an executor's verdicts are remembered for.
JUDGED_KEPT = 8192
# Questions of one executor that wait for upstreams.
MAX_WAITING = 256
# Failures remembered, so that what cannot be answered is not asked again at once.
MAX_FAILURES = 4096
# Seconds until a question that waits for its answer is on record without it; as for every other exchange.
HOLD = 0.2
_LOCALHOST = {NUMBERS["A"]: "127.0.0.1", NUMBERS["AAAA"]: "::1"}

Reply = Callable[[bytes], None]


@dataclass(frozen=True, slots=True)
class Judged:
    """Policy's word on a name, and the name as it may be recorded."""

    verdict: Verdict
    text: str


@dataclass(slots=True)
class Asker:
    """One executor: what it may ask, what it has asked. `judged` holds for one generation."""

    executor: Executor
    limits: Limits
    judged: OrderedDict[str, Judged] = field(default_factory=OrderedDict)
    waiting: int = 0


@dataclass(slots=True)
class Query:
    """One question on its way. `stream`: over TCP, where an answer of any size fits."""

    asker: Asker
    question: Question
    exchange: Exchange
    verdict: Verdict
    reply: Reply
    stream: bool


class Answerer:
    """Answers for all executors. `counters`: by name, for `enforcer status`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, journal: Journal, counters: Counter[str]) -> None:
        self._loop = loop
        self._journal = journal
        self._counters = counters
        self._upstreams = Upstreams(counters)
        self.links = Links(loop)
        self._cache = Cache(0, time.monotonic)
        self._askers: dict[int, Asker] = {}
        self._generation: Generation | None = None
        self._types: frozenset[int] = frozenset()
        self._steer = False
        self._hosts_matter = False
        self._fetches: dict[tuple[bytes, int], asyncio.Task[Entry]] = {}
        self._failures: dict[tuple[bytes, int], tuple[float, NoAnswer]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    # --- what the supervisor says

    def take_generation(self, generation: Generation) -> None:
        settings = generation.settings["resolver"]
        self._generation = generation
        self._types = frozenset(NUMBERS[name] for name in settings["types"])
        self._steer = settings["steer"]
        self._cache.resize(settings["cache_bytes"])
        self._upstreams.use([Server(*server) for server in settings["upstreams"]])
        rules = (rule for policy in generation.policies.policies for rule in policy.rules)
        self._hosts_matter = any(rule.hosts or rule.suffixes for rule in rules)
        for asker in self._askers.values():
            asker.judged.clear()
            asker.limits.names_per_minute = settings["names_per_minute"]

    @property
    def generation(self) -> Generation:
        if self._generation is None:
            raise RuntimeError("no generation has come yet")
        return self._generation

    def asker(self, executor: Executor) -> Asker:
        """The executor's, made at the first call."""
        asker = self._askers.get(executor.cgroup_id)
        if asker is None:
            limits = Limits(self.generation.settings["resolver"]["names_per_minute"])
            asker = self._askers[executor.cgroup_id] = Asker(executor, limits)
        return asker

    def forget(self, executor: Executor) -> None:
        self._askers.pop(executor.cgroup_id, None)
        self.links.forget(executor.cgroup_id)

    # --- one message

    def receive(self, data: bytes, asker: Asker, sessions: Sessions, reply: Reply, *, stream: bool = False) -> None:
        """Answers one message, now or later."""
        question = parse(data)
        self._counters["QUERIES"] += 1
        if isinstance(question, Fault):
            self._refuse_form(question, sessions, len(data), reply)
            return
        judged = asker.judged.get(question.text) or self._judge(asker, question.text)
        verdict = judged.verdict
        if self._journal.failing:
            verdict = Verdict(Action.DENY, Reason.RECORDER, detail=self._journal.failing)
        exchange = self._exchange(sessions, verdict, question.type_text, judged.text, len(data))
        query = Query(asker, question, exchange, verdict, reply, stream)
        if verdict.reason is Reason.RECORDER:
            self._refuse(query, verdict, "REFUSED_RECORDER", Rcode.SERVFAIL, Ede.OTHER)
        elif question.qtype not in self._types:
            denied = Verdict(Action.DENY, Reason.RESOLVER, detail=f"type {question.type_text} is not let through")
            self._refuse(query, denied, "REFUSED_TYPE", Rcode.REFUSED, Ede.PROHIBITED)
        elif not verdict.passes:
            # Not REFUSED: musl's resolver takes that for no answer at all, and waits until it gives up.
            self._refuse(query, verdict, "REFUSED_NAME", Rcode.NXDOMAIN, Ede.BLOCKED)
        else:
            self._answer(query)

    def _exchange(self, sessions: Sessions, verdict: Verdict, operation: str, text: str, size: int) -> Exchange:
        session, number = sessions.exchange(verdict, self.generation.number, self.generation.table.version)
        return Exchange(
            sessions, self._journal, session, number, operation, text, size, time.time_ns(), time.monotonic_ns()
        )

    def _answer(self, query: Query) -> None:
        question = query.question
        entry = self._cache.get((question.name, question.qtype))
        if entry is not None:
            self._counters["CACHE_HITS"] += 1
            self._deliver(query, entry, "cache")
            return
        if question.text == "localhost" or question.text.endswith(".localhost"):
            address = _LOCALHOST.get(question.qtype)
            self._deliver(query, local_answer(question, address, time.monotonic()), "this host")
            return
        why = query.asker.limits.refuses(question.text, time.monotonic())
        if not why and query.asker.waiting >= MAX_WAITING:
            why = f"more than {MAX_WAITING} questions wait for an answer"
        if why:
            denied = Verdict(Action.DENY, Reason.RESOLVER, detail=why)
            self._refuse(query, denied, "REFUSED_LIMIT", Rcode.REFUSED, Ede.PROHIBITED)
            return
        query.asker.waiting += 1
        task = self._loop.create_task(self._forward(query))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- decide

    def _judge(self, asker: Asker, name: str) -> Judged:
        """The verdict on a name, remembered until the generation changes."""
        generation = self.generation
        verdict = judge_name(generation.policies, asker.executor, name)
        if is_reverse(name):
            address = reverse_address(name)
            if address is None:
                verdict = Verdict(Action.DENY, Reason.NO_RULE, detail="a reverse name that is no address")
            else:
                region = generation.table.lookup(address)
                verdict = judge_address(generation.policies, asker.executor, address, region)
        judged = asker.judged[name] = Judged(verdict, generation.record_masker.mask_text(name))
        if len(asker.judged) > JUDGED_KEPT:
            asker.judged.popitem(last=False)
        return judged

    def _is_special(self, address: Address) -> bool:
        """Not an address of a public place: telling it may lead an executor to this host or its network."""
        return is_host(address) or self.generation.table.lookup(address).kind not in PUBLIC

    def _view(self, query: Query, entry: Entry) -> View:
        """What this executor may see of `entry`."""
        if not (entry.special or self._steer or (self._hosts_matter and entry.names)):
            return entry.full
        question, executor = query.question, query.asker.executor
        key = (question.name, question.qtype)
        if entry.generation != self.generation.number:
            self._cache.forget_views(key, entry, self.generation.number)
        view = entry.views.get(executor.cgroup_id)
        if view is None:
            view = self._make_view(query, entry)
            self._cache.keep_view(key, entry, executor.cgroup_id, view)
        return view

    def _make_view(self, query: Query, entry: Entry) -> View:
        generation, executor = self.generation, query.asker.executor
        for name in entry.names:
            denied = forbids_name(generation.policies, executor, name)
            if denied is not None:
                note = f"it is an alias of {name}, which rule {denied.policy}/{denied.rule} forbids"
                wire = HEADER.pack(0, QR, 1, 0, 0, 0) + query.question.raw
                return View(wire, Rcode.NXDOMAIN, 0, note=note, denied=replace(denied, detail=note))

        def keeps(address: Address) -> bool:
            if not self._steer and not self._is_special(address):
                return True
            region = generation.table.lookup(address)
            return judge_address(generation.policies, executor, address, region, query.question.text).passes

        kept = keep_addresses(entry.full.wire, keeps)
        if not kept.dropped:
            return entry.full
        dropped = ", ".join(f"{one} ({generation.table.lookup(one)})" for one in kept.dropped[:8])
        note = "" if kept.addresses else f"no rule lets any of its addresses be reached: {dropped}"
        return View(kept.wire, entry.full.rcode, kept.records, kept.addresses, note, dropped)

    # --- forward

    async def _forward(self, query: Query) -> None:
        """Has upstreams asked. The question is on record first where its rule says so, and soon otherwise."""
        verdict, exchange = query.verdict, query.exchange
        if verdict.durable:
            exchange.announce(verdict, durable=True)
            committed: asyncio.Future[str] = self._loop.create_future()
            self._journal.commit(committed.set_result)
            error = await committed
            if error:
                query.asker.waiting -= 1
                refused = Verdict(Action.DENY, Reason.RECORDER, verdict.policy, verdict.rule, error)
                self._refuse(query, refused, "REFUSED_RECORDER", Rcode.SERVFAIL, Ede.OTHER)
                return
        announcing = self._loop.call_later(HOLD, exchange.announce, verdict)
        try:
            entry = await self._fetch(query.question)
        except NoAnswer as error:
            self._fail(query, error)
        else:
            self._deliver(query, entry, entry.source)
        finally:
            announcing.cancel()
            query.asker.waiting -= 1

    async def _fetch(self, question: Question) -> Entry:
        """The answer to a name and type, asked for once however many wait for it. Raises NoAnswer."""
        key = (question.name, question.qtype)
        until, failure = self._failures.get(key, (0.0, None))
        if failure is not None and time.monotonic() < until:
            raise failure
        fetch = self._fetches.get(key)
        if fetch is None:
            fetch = self._fetches[key] = self._loop.create_task(self._ask(question))
            fetch.add_done_callback(lambda _done: self._fetches.pop(key, None))
        return await asyncio.shield(fetch)

    async def _ask(self, question: Question) -> Entry:
        rejected: set[Server] = set()
        while True:
            self._counters["FORWARDED"] += 1
            try:
                raw, server = await self._upstreams.ask(question.name, question.qtype, rejected)
            except NoAnswer as error:
                if len(self._failures) >= MAX_FAILURES:
                    self._failures.clear()
                self._failures[question.name, question.qtype] = (time.monotonic() + FAILURE_TTL, error)
                raise
            try:
                entry = read_answer(question, raw, str(server), self._is_special, time.monotonic())
            except Unusable:
                self._counters["UPSTREAM_UNUSABLE"] += 1
                rejected.add(server)
                continue
            self._cache.put((question.name, question.qtype), entry)
            return entry

    # --- answer

    def _deliver(self, query: Query, entry: Entry, source: str) -> None:
        """Records and sends what the executor may see of an answer."""
        question, view = query.question, self._view(query, entry)
        age = int(time.monotonic() - entry.stored)
        wire = self._render(question, view, age)
        if not query.stream and len(wire) > question.size:
            self._counters["TRUNCATED"] += 1
            wire = truncated(question, view.rcode)
        facts = {"from": source}
        if view.addresses:
            facts["addresses"] = ", ".join(map(str, view.addresses))
            self.links.tell(query.asker.executor.cgroup_id, view.addresses, question.text, entry.expires)
        if view.dropped:
            self._counters["ADDRESSES_DROPPED"] += 1
            facts["dropped"] = view.dropped
        if view.denied is not None:
            self._counters["REFUSED_NAME"] += 1
        query.exchange.conclude(view.denied or query.verdict, view.rcode, view.records, len(wire), facts)
        self._journal.before_bytes(lambda: query.reply(wire), len(wire))

    def _render(self, question: Question, view: View, age: int) -> bytes:
        wire = bytearray(view.wire)
        flags = QR | RA | (RD if question.recursion else 0) | view.rcode
        HEADER.pack_into(wire, 0, question.ident, flags, 1, *HEADER.unpack_from(wire)[3:5], int(question.edns))
        wire[12 : 12 + len(question.raw)] = question.raw
        for offset, ttl in view.offsets:
            wire[offset : offset + 4] = max(ttl - age, 0).to_bytes(4, "big")
        if question.edns:
            wire += opt_record(0, Ede.BLOCKED, view.note) if view.note else _PLAIN_OPT
        return bytes(wire)

    def _fail(self, query: Query, error: NoAnswer) -> None:
        self._counters["NO_ANSWER"] += 1
        wire = build_answer(query.question, Rcode.SERVFAIL, error.ede, str(error))
        query.exchange.conclude(query.verdict, Rcode.SERVFAIL, 0, len(wire), {"error": str(error)})
        self._journal.before_bytes(lambda: query.reply(wire), len(wire))

    def _refuse(self, query: Query, verdict: Verdict, counter: str, rcode: Rcode, ede: Ede) -> None:
        self._counters[counter] += 1
        wire = build_answer(query.question, rcode, ede, _words(verdict, query.question.text))
        query.exchange.refused(verdict, len(wire))
        self._journal.before_bytes(lambda: query.reply(wire), len(wire))

    def _refuse_form(self, fault: Fault, sessions: Sessions, size: int, reply: Reply) -> None:
        """What is no question. Nothing of it is recorded but that it was there: it has no name."""
        self._counters[f"REFUSED_{fault.counter}"] += 1
        verdict = Verdict(Action.DENY, Reason.PROTOCOL_ERROR, detail=fault.why)
        exchange = self._exchange(sessions, verdict, "malformed", "", size)
        if fault.rcode is None:
            exchange.refused(verdict, 0)
            reply(b"")
            return
        wire = build_answer(fault, fault.rcode, Ede.PROHIBITED, fault.why)
        exchange.refused(verdict, len(wire))
        self._journal.before_bytes(lambda: reply(wire), len(wire))


_PLAIN_OPT = opt_record()


def _words(verdict: Verdict, name: str) -> str:
    """For whoever runs the client: which rule, and how to ask."""
    by = f"rule {verdict.policy}/{verdict.rule}" if verdict.rule else verdict.reason.value
    said = f"{by}: {verdict.detail}" if verdict.detail else by
    return f"{name}: {said}; 'enforcer explain --name {name}' shows every rule tried"
