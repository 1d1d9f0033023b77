"""Redis through whole sessions of the proxy: judged by operation and key, masked, recorded, also inside TLS."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from enforcer.protocols.redis.client import encode
from enforcer.tls.authority import Authority
from enforcer.verdict import Column, MaskSpec
from tests.databases.gateway import Gateway, allow, rule
from tests.databases.inspected import free_port
from tests.databases.redis_server import running_redis
from tests.proxy.stage import CARD, MASKED_CARD, Stage
from tests.proxy.stage import allow as stage_allow

SERVER_NAME = "db.example"


class Server:
    """`port`: in clear. `tls_port`: with a certificate for SERVER_NAME of `public`."""

    def __init__(self, port: int, tls_port: int, public: Authority) -> None:
        self.port, self.tls_port, self.public = port, tls_port, public


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory: Path = tmp_path_factory.mktemp("redis-gateway")
    public = Authority.create(directory / "public")
    pem = directory / "server.pem"
    pem.write_text(public.leaf(SERVER_NAME).pem)
    tls_port = free_port()
    tls = ["--tls-port", str(tls_port), "--tls-auth-clients", "no", "--tls-ca-cert-file", str(pem)]
    with running_redis(directory, *tls, "--tls-cert-file", str(pem), "--tls-key-file", str(pem)) as port:
        with redis.Redis(port=port) as direct:
            direct.hset("user:1", mapping={"name": "Ada", "card": CARD, "ssn": "none"})
            direct.set("note", f"paid with {CARD}")
            direct.execute_command("ACL", "SETUSER", "app", "on", ">first-password", "~*", "&*", "+@all")
        yield Server(port, tls_port, public)


def client(gateway: Gateway, **how: Any) -> Any:
    return redis.Redis(port=gateway.port, socket_timeout=30, decode_responses=True, **how)


@pytest.mark.parametrize("version", [2, 3])
def test_answers_are_masked_and_recorded(server: Server, version: int) -> None:
    """Cards are hidden in strings, hashes and transactions; each command is a row with its keys, its operation and how
    many values were hidden."""
    with Gateway(server.port, allow("credit_card")) as gateway:
        with client(gateway, protocol=version) as db:
            assert db.get("note") == f"paid with {MASKED_CARD}"
            assert db.hgetall("user:1")["card"] == MASKED_CARD
            assert db.pipeline().hget("user:1", "card").execute() == [MASKED_CARD]
        gateway.ended()
        row = gateway.exchanges("HGETALL")[0]
        assert (row["text"], row["facts"]["table"], row["facts"]["operation"]) == ("HGETALL user:1", "user:1", "read")
        assert (row["masked"], row["status"]) == ({"credit_card": 1}, "array")
        assert CARD not in str(gateway.rows("exchanges"))


def test_fields_are_masked_by_name(server: Server) -> None:
    """A rule on `*.ssn` hides that field of every hash, whether it is asked for alone or with all, and nothing else."""
    with Gateway(server.port, rule(mask=MaskSpec(columns=(Column("user:*.ssn"),)))) as gateway, client(gateway) as db:
        assert db.hgetall("user:1") == {"name": "Ada", "card": CARD, "ssn": "****"}
        assert db.hmget("user:1", "ssn", "name") == ["****", "Ada"]
        assert db.get("note") == f"paid with {CARD}"
        assert db.eval("return redis.call('hget', 'user:1', 'ssn')", 0) == "****"


SSN = "078-05-1120"
SCRIPTS = (
    "return redis.error_reply(redis.call('HGET', 'user:7', 'ssn'))",
    "return {err = 'ERR ' .. redis.call('HGET', 'user:7', 'ssn')}",
    "return redis.error_reply(redis.call('HGET', 'user:7', 'word') .. ' x')",
    "error(redis.call('HGET', 'user:7', 'ssn'))",
    "return redis.call(redis.call('HGET', 'user:7', 'ssn'))",
    "return {{err = redis.call('HGET', 'user:7', 'ssn')}}",
)


@pytest.mark.parametrize("version", [2, 3])
def test_a_hidden_field_has_no_other_way_out(server: Server, version: int) -> None:
    """In errors of scripts, codes included, in what is told of a stream, and bit by bit; NOSCRIPT stays what it is."""
    with redis.Redis(port=server.port) as direct:
        direct.hset("user:7", mapping={"ssn": SSN, "word": "ZEBRA", "name": "Ada"})
        direct.set("pin", SSN)
        direct.delete("log")
        direct.xadd("log", {"ssn": SSN, "name": "Ada"})
    hidden = MaskSpec(columns=tuple(map(Column, ("user:*.ssn", "user:*.word", "log.ssn", "pin"))))
    with Gateway(server.port, rule(mask=hidden)) as gateway, client(gateway, protocol=version) as db:
        for script in SCRIPTS:
            for command in ("EVAL", "EVAL_RO"):
                try:
                    said = repr(db.execute_command(command, script, 0))
                except redis.RedisError as error:
                    said = str(error)
                assert SSN not in said, (script, said)
                assert "ZEBRA" not in said, (script, said)
        for asked in (("XINFO", "STREAM", "log"), ("XINFO", "STREAM", "log", "FULL"), ("XRANGE", "log", "-", "+")):
            said = repr(db.execute_command(*asked))
            assert SSN not in said
            assert "Ada" in said
        assert db.execute_command("GETBIT", "pin", 1) is None
        assert db.execute_command("BITCOUNT", "pin") is None
        assert db.execute_command("BITPOS", "pin", 1, 2) is None
        with pytest.raises(redis.exceptions.NoScriptError):
            db.evalsha("0" * 40, 0)
    assert "ZEBRA" not in repr(gateway.exchanges())


def test_requests_are_rewritten(server: Server) -> None:
    """What goes to the server has no card in it, whatever argument it stood in; a password is left alone."""
    with (
        Gateway(server.port, rule(request_mask=MaskSpec(detectors=("credit_card",)))) as gateway,
        client(gateway) as db,
    ):
        db.set("bought", f"with {CARD}")
        db.rpush("list", "x", CARD)
    with redis.Redis(port=server.port, decode_responses=True) as direct:
        assert direct.get("bought") == f"with {MASKED_CARD}"
        assert direct.lrange("list", 0, -1) == ["x", MASKED_CARD]


def test_passwords_are_in_no_record(server: Server) -> None:
    """AUTH, HELLO, ACL SETUSER and CONFIG SET work, and what they are told as secret is written nowhere."""
    with Gateway(server.port, allow()) as gateway:
        with client(gateway, username="app", password="first-password", protocol=3) as db:
            assert db.acl_whoami() == "app"
            db.execute_command("ACL", "SETUSER", "other", "on", ">second-password", "#" + "ab" * 32)
            db.execute_command("CONFIG", "SET", "masterauth", "third-password")
        with client(gateway, username="app", password="first-password", protocol=2) as db:
            assert db.acl_whoami() == "app"
        gateway.ended()
        written = str(gateway.rows("exchanges"))
        assert "-password" not in written
        assert "abab" not in written
        assert {row["facts"]["user"] for row in gateway.exchanges("ACL WHOAMI")} == {"app"}


def test_where_the_server_is_told_to_connect_is_judged() -> None:
    """MIGRATE to a place that no rule allows is refused, to one that is allowed it goes on; MONITOR never does."""
    with Stage(stage_allow()) as stage:
        stage.client_sends(encode([b"MIGRATE", b"8.8.8.8", b"6379", b"k", b"0", b"1"]))
        assert b"-NOPERM" in stage.to_client
        assert b"8.8.8.8:6379 (US)" in stage.to_client
        stage.client_sends(encode([b"MONITOR"]))
        assert stage.to_client.count(b"-NOPERM") == 2
        assert not stage.dials
        allowed = encode([b"MIGRATE", b"3.120.0.10", b"6379", b"k", b"0", b"1"])
        stage.client_sends(allowed)
        stage.connects()
        assert stage.to_server == allowed


def test_tls_ends_here(server: Server, tmp_path: Path) -> None:
    """redis-cli takes our certificate, the server's is verified, and inside it is Redis as ever, masked."""
    ours = Authority.create(tmp_path)
    with Gateway(server.tls_port, allow("credit_card"), authority=ours, trust=server.public.certificate) as gateway:
        done = subprocess.run(
            ["redis-cli", "-p", str(gateway.port), "--tls", "--sni", SERVER_NAME, "--cacert", str(tmp_path / "ca.pem")],
            input="get note\n",
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        )
        assert done.stdout.strip() == f"paid with {MASKED_CARD}", done.stderr
        gateway.ended()
        assert gateway.exchanges("GET")[0]["facts"]["host"] == SERVER_NAME


def test_inline_commands_and_huge_claims_end_the_flow(server: Server) -> None:
    """A line instead of an array, an argument of 512 MiB, and a count of a million: refused in one line, and nothing of
    it reaches the server."""
    opening = b"*1\r\n$4\r\nPING\r\n"
    for bad in (
        b"PING\r\n",
        b"*2\r\n$3\r\nGET\r\n$536870912\r\nabc",
        b"*1000000\r\n",
        b"*1\r\n$-1\r\n",
        b"*1\r\n$01\r\nx\r\n",
    ):
        with Gateway(server.port, allow()) as gateway, socket.create_connection(("127.0.0.1", gateway.port), 30) as end:
            end.sendall(opening)
            assert end.recv(100) == b"+PONG\r\n"
            end.sendall(bad)
            said = b""
            while piece := end.recv(4096):
                said += piece
            assert said.startswith(b"-NOPERM egress to "), bad
            assert said.endswith(b"\r\n")
            assert said.count(b"\r\n") == 1
            gateway.ended()
            assert [row["operation"] for row in gateway.exchanges()] == ["PING"]
