"""Names that an executor was told: bounded, for a time, per executor, and known before the first connection."""

from __future__ import annotations

import asyncio
import socket
import time
from ipaddress import ip_address

import orjson
import pytest

from enforcer.flow import Endpoint, Executor, Flow
from enforcer.proxy import told as told_module
from enforcer.proxy.told import Names, Told, receive_handed
from tests.proxy.stage import DE, Table
from tests.resolver.stage import awaited


def test_a_name_is_remembered_for_its_executor_and_its_time() -> None:
    """Another executor was told nothing; when the time is over, nobody was."""
    told, now = Told(), time.monotonic()
    told.learn(7, DE, "db.example", now + 100)
    told.learn(7, DE, "old.example", now - 1)
    assert told.names(7, DE) == ("db.example",)
    assert told.names(8, DE) == ()
    assert [row[:3] for row in told.rows()] == [(7, DE, "db.example")]
    told.forget(7)
    assert told.names(7, DE) == ()


def test_the_longest_time_counts() -> None:
    """A later answer with a shorter TTL does not shorten it."""
    told, now = Told(), time.monotonic()
    told.learn(7, DE, "db.example", now + 100)
    told.learn(7, DE, "db.example", now + 10)
    assert told.until(7, DE, "db.example") == now + 100


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The address that was told longest ago goes; one with too many names is as if nothing was told."""
    monkeypatch.setattr(told_module, "MAX_ADDRESSES", 3)
    monkeypatch.setattr(told_module, "MAX_NAMES", 2)
    told, until = Told(), time.monotonic() + 100
    for number in range(5):
        told.learn(7, f"3.120.0.{number}", "db.example", until)
    assert [row[1] for row in told.rows()] == ["3.120.0.2", "3.120.0.3", "3.120.0.4"]
    told.learn(7, "3.120.0.4", "two.example", until)
    assert len(told.names(7, "3.120.0.4")) == 2
    told.learn(7, "3.120.0.4", "three.example", until)
    assert told.names(7, "3.120.0.4") == ()


def pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


@awaited
async def test_what_was_sent_is_known_without_a_turn_of_the_loop() -> None:
    """The resolver sends before it answers: a worker that accepts first reads what waits."""
    names = Names(asyncio.get_running_loop())
    ours, theirs = pair()
    with ours:
        names.connect(theirs)
        ours.send(orjson.dumps([[7, DE, "db.example", 600]]))
        assert names.of(7, DE) == ("db.example",)


@awaited
async def test_names_outlive_their_resolver() -> None:
    """It is gone, another comes: what was told stays true."""
    names = Names(asyncio.get_running_loop())
    ours, theirs = pair()
    names.connect(theirs)
    ours.send(orjson.dumps([[7, DE, "db.example", 600]]))
    ours.close()
    assert names.of(7, DE) == ("db.example",)
    assert names.of(7, DE) == ("db.example",)
    ours, theirs = pair()
    with ours:
        names.connect(theirs)
        assert names.of(7, DE) == ("db.example",)


def question_over_tcp() -> Flow:
    endpoint = Endpoint(ip_address(DE), 53)
    executor = Executor("agent-1", "agent", 1000, "runner", 7)
    return Flow(executor, endpoint, Table().lookup(endpoint.address), 5, 4242, 1000, 1)


@awaited
async def test_a_connection_is_handed_over_with_whose_it_is() -> None:
    """The resolver gets the socket and the kernel's record of it; without a resolver nobody does."""
    names = Names(asyncio.get_running_loop())
    names.resolving = True
    flow = question_over_tcp()
    assert names.takes(flow)
    client, accepted = socket.socketpair()
    with client, accepted:
        names.hand_over(flow, accepted.fileno())  # nobody is there: logged, and the caller closes it
        ours, theirs = pair()
        with ours:
            names.connect(theirs)
            names.hand_over(flow, accepted.fileno())
            handed = receive_handed(ours)
            assert handed is not None
            whose, sock = handed
            with sock:
                assert whose == {"executor": 7, "destination": DE, "pid": 4242, "uid": 1000, "opened_ns": 1}
                client.send(b"question")
                assert sock.recv(100) == b"question"


@awaited
async def test_without_a_resolver_port_53_is_like_any_other() -> None:
    """Nothing is taken from the proxy."""
    names = Names(asyncio.get_running_loop())
    assert not names.takes(question_over_tcp())
