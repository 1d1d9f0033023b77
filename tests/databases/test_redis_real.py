"""Real clients through the inspector to a real Redis: what they are told is what the server said, but for what is
hidden or refused."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from enforcer.protocols.base import Request, Rows
from enforcer.protocols.redis import PROTOCOL
from enforcer.protocols.redis.commands import COMMANDS, CONTAINERS, command_of
from enforcer.verdict import Denial
from tests.conversation import DENIAL
from tests.databases.inspected import Relay, relay
from tests.databases.redis_battery import commands, replies
from tests.databases.redis_server import running_redis

SECRET, STARS = b"secret", b"******"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with running_redis(tmp_path_factory.mktemp("redis")) as port:
        yield port


@pytest.fixture(scope="module")
def told(server: int) -> dict[int, list[Any]]:
    """What the server itself says, by the version of RESP."""
    return {version: replies(server, version) for version in (2, 3)}


def forbidden(request: Request) -> Denial | None:
    return DENIAL if "forbidden" in request.text else None


def starred(rows: Rows) -> list[bytes | None]:
    return [value and value.replace(SECRET, STARS) for value in rows.values]


def client(via: Relay, **how: Any) -> Any:
    return redis.Redis(port=via.port, protocol=how.pop("protocol", 3), socket_timeout=20, **how)


WAYS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "every reply looked at": {"mask_rows": lambda rows: rows.values},
    "every command rewritten": {"rewrite": lambda text: text},
    "in pieces of 7 bytes": {"piece": 7, "mask_rows": lambda rows: rows.values},
}


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("way", WAYS)
def test_every_reply_arrives_as_it_was_said(server: int, told: dict[int, list[Any]], way: str, version: int) -> None:
    """A hundred commands of every kind are answered to the client as the server answers them, and each has its end."""
    with relay(PROTOCOL.inspector, server, **WAYS[way]) as via:
        got = replies(via.port, version)
    assert list(zip(commands(), got, strict=True)) == list(zip(commands(), told[version], strict=True))
    assert [one.exchange for one in via.requests] == sorted(one.exchange for one in via.outcomes)


@pytest.mark.parametrize("version", [2, 3])
def test_a_refused_command_is_answered_in_its_place(server: int, version: int) -> None:
    """In a pipeline the refusal is NOPERM, where the command stood; the others are carried out, and what follows."""
    with relay(PROTOCOL.inspector, server, decide=forbidden) as via, client(via, protocol=version) as db:
        pipe = db.pipeline(transaction=False)
        pipe.set("kept", "1").set("forbidden", "2").get("kept")
        done = pipe.execute(raise_on_error=False)
        assert done[0] is True
        assert isinstance(done[1], redis.exceptions.NoPermissionError)
        assert "session 0a1b" in str(done[1])
        assert done[2] == b"1"
        assert db.get("kept") == b"1"
        assert db.exists("kept") == 1
    assert b"forbidden" not in via.sent_up


@pytest.mark.parametrize("version", [2, 3])
def test_a_transaction_with_a_refused_command_is_discarded(server: int, version: int) -> None:
    """EXEC says EXECABORT, nothing of the transaction was carried out, and the next one works."""
    with relay(PROTOCOL.inspector, server, decide=forbidden) as via, client(via, protocol=version) as db:
        pipe = db.pipeline()
        pipe.set("aborted", "1").set("forbidden", "2")
        with pytest.raises(redis.exceptions.NoPermissionError):
            pipe.execute()
        connection = db.connection_pool.get_connection()
        for command in ("MULTI", "SET aborted 1", "GET forbidden"):
            connection.send_command(*command.split())
        connection.send_command("EXEC")
        assert [connection.read_response() for _ in range(2)] == [b"OK", b"QUEUED"]
        with pytest.raises(redis.exceptions.NoPermissionError):
            connection.read_response()
        with pytest.raises(redis.exceptions.ExecAbortError):
            connection.read_response()
        db.connection_pool.release(connection)
        assert db.exists("aborted") == 0
        assert db.pipeline().set("after", "1").get("after").execute() == [True, b"1"]


@pytest.mark.parametrize("version", [2, 3])
def test_values_are_hidden_wherever_they_are(server: int, version: int) -> None:
    """Strings, hashes, lists, streams, transactions, scripts and errors come with what is to be hidden hidden."""
    with redis.Redis(port=server) as direct:
        direct.flushall()
        direct.set("s", SECRET)
        direct.hset("h", mapping={"f": SECRET})
        direct.rpush("l", *[b"%d " % n + SECRET for n in range(1000)])
        direct.xadd("x", {"f": SECRET})
        direct.set("big", SECRET * 100_000)
    how = {"mask_rows": starred, "mask_text": lambda text: text.data.replace(SECRET, STARS)}
    with relay(PROTOCOL.inspector, server, **how) as via, client(via, protocol=version) as db:
        assert db.get("s") == STARS
        assert db.hgetall("h") == {b"f": STARS}
        assert db.lrange("l", 0, -1) == [b"%d " % n + STARS for n in range(1000)]
        assert SECRET not in repr(db.xrange("x")).encode()
        assert db.pipeline().get("s").hget("h", "f").execute() == [STARS, STARS]
        assert db.eval("return redis.call('get', 's')", 0) == STARS
        assert db.get("big") == STARS * 100_000
        with pytest.raises(redis.ResponseError, match=r"\*{6}"):
            db.execute_command("NOSUCH", SECRET)
        assert db.dump("s") is None  # in Redis's own format, which nobody here reads


@pytest.mark.parametrize("version", [2, 3])
def test_messages_are_masked_as_their_subscription_is(server: int, version: int) -> None:
    """What is published arrives masked, named after its channel; the subscription's end counts the messages."""
    seen: list[tuple[str, ...]] = []

    def mask(rows: Rows) -> list[bytes | None]:
        seen.append(rows.columns)
        return starred(rows)

    with relay(PROTOCOL.inspector, server, mask_rows=mask) as via, client(via, protocol=version) as db:
        listener = db.pubsub()
        listener.subscribe("news", "more")
        listener.psubscribe("n*s")
        assert [listener.get_message(timeout=20)["type"] for _ in range(3)] == ["subscribe", "subscribe", "psubscribe"]
        with redis.Redis(port=server) as direct:
            assert direct.publish("news", SECRET) == 2
        got = [listener.get_message(timeout=20) for _ in range(2)]
        assert sorted((one["type"], one["data"]) for one in got) == [("message", STARS), ("pmessage", STARS)]
        listener.ping()
        assert listener.get_message(timeout=20)["type"] == "pong"
        listener.unsubscribe()
        listener.punsubscribe()
        assert [listener.get_message(timeout=20)["type"] for _ in range(3)] == ["unsubscribe"] * 2 + ["punsubscribe"]
        listener.close()
        db.ping()
    assert ("message", "news") in seen
    assert ("pmessage", "pmessage", "news") in seen
    ends = {one.status: one.rows for one in via.outcomes}
    assert ends["unsubscribed"] == 2


def test_redis_cli_reads_the_denial_and_goes_on(server: int) -> None:
    """redis-cli prints the refusal in one line, and its next command works."""
    with relay(PROTOCOL.inspector, server, decide=forbidden) as via:
        done = subprocess.run(
            ["redis-cli", "-p", str(via.port)],
            input="set word before\nget forbidden\nget word\n",
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        )
    lines = [line for line in done.stdout.splitlines() if line]
    assert lines[0] == "OK"
    assert lines[1].startswith("NOPERM egress to 8.8.8.8:80 denied: ")
    assert lines[2] == "before"


def test_what_cannot_be_inspected_is_at_fault(server: int) -> None:
    """Replication, MONITOR, switched-off replies and subscriptions in transactions are marked as faults, and refused
    they leave the connection good."""
    with relay(PROTOCOL.inspector, server, decide=lambda one: DENIAL if one.fault else None) as via, client(via) as db:
        for command in ("MONITOR", "PSYNC ? -1", "SYNC", "REPLCONF ACK 1", "CLIENT REPLY OFF", "CLIENT REPLY SKIP"):
            with pytest.raises(redis.exceptions.NoPermissionError):
                db.execute_command(*command.split())
        assert db.execute_command("CLIENT", "REPLY", "ON") == b"OK"
        with pytest.raises(redis.exceptions.NoPermissionError):
            db.pipeline().execute_command("SUBSCRIBE", "a").execute()
        assert db.ping()


def test_blocking_commands_and_streams_of_values_pass(server: int) -> None:
    """BLPOP waits for what another connection pushes; a value of 5 MiB goes through in pieces."""
    with relay(PROTOCOL.inspector, server) as via, client(via) as db, redis.Redis(port=server) as direct:
        connection = db.connection_pool.get_connection()
        connection.send_command("BLPOP", "queue", "0")
        direct.rpush("queue", "pushed")
        assert connection.read_response() == [b"queue", b"pushed"]
        db.connection_pool.release(connection)
        direct.set("long", b"x" * (5 << 20))
        assert db.get("long") == b"x" * (5 << 20)


def test_the_table_of_commands_is_the_servers(server: int) -> None:
    """Each command of this server is known, with the operation that its flags say and the keys that the server finds;
    the exceptions are those that the table's module names."""
    with redis.Redis(port=server, protocol=3) as db:
        listed = db.execute_command("COMMAND")
        db.set_response_callback("COMMAND", lambda keys: keys)
        flags: dict[str, set[str]] = {}
        for name, about in listed.items():
            flags[name.upper()] = set(about["flags"])
            for sub in about["subcommands"]:
                fields = sub if isinstance(sub, dict) else {"name": sub[0], "flags": sub[2]}
                word = fields["name"] if isinstance(fields["name"], str) else fields["name"].decode()
                marks = {one if isinstance(one, str) else one.decode() for one in fields["flags"]}
                flags[word.upper()] = marks
        ours = {name.decode(): operation for name, (operation, *_) in COMMANDS.items()}
        missing = set(flags) - set(ours) - {name.decode() for name in CONTAINERS}
        assert not missing
        for name, marks in flags.items():
            said = ours.get(name)
            if "write" in marks and said not in ("write", "admin"):
                pytest.fail(f"{name} writes, and is taken for {said}")
            if "admin" in marks and said not in ("admin", None) and name != "CONFIG|HELP":
                pytest.fail(f"{name} is for administrators, and is taken for {said}")
        for line in KEYED:
            words = line.encode().split()
            assert list(command_of(words).keys) == db.execute_command("COMMAND", "GETKEYS", *words), line


KEYED = """get a|mget a b|mset a 1 b 2|del a b c|lcs a b|copy a b|blpop a b 0|bzmpop 0 2 a b min|lmpop 2 a b left
xread count 1 streams a b 0 0|xreadgroup group g c streams a >|zunionstore d 2 a b weights 1 1|sinterstore d a b
bitop and d a b|pfmerge d a b|sort a store d|georadius a 1 1 1 km store d|object encoding a|xgroup create a g 0
zdiff 2 a b|migrate h 1 k 0 1|rename a b|eval s 2 a b c|smove a b m|memory usage a
watch a b|touch a|hset a f v|zrangestore d a 0 1|xautoclaim a g c 0 0|getex a|lmove a b left right""".replace(
    "\n", "|"
).split("|")
