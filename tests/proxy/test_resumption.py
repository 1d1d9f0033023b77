"""TLS sessions of servers: resumed by the same name's next connection, and by nothing else."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path

import pytest
import uvloop

from enforcer.flow import Endpoint
from enforcer.proxy import resumption
from enforcer.proxy.resumption import ResumingContext
from enforcer.proxy.upstream import dial
from enforcer.tls.authority import Authority
from tests.proxy.stage import PATIENCE
from tests.proxy.test_upstream import AtOnce, Heard

Loop = Callable[[], asyncio.AbstractEventLoop]
NAME = "api.home.example"


class Server:
    """Greets, and keeps whether each of its connections was resumed."""

    def __init__(self, authority: Authority, directory: Path, name: str, newest: ssl.TLSVersion) -> None:
        leaf = authority.leaf(name)
        pem = directory / f"{name}.pem"
        pem.write_text(leaf.pem)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.maximum_version = newest
        self.context.load_cert_chain(pem)
        self.resumed: list[bool] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.resumed.append(writer.get_extra_info("ssl_object").session_reused)
        writer.write(b"hello")
        await reader.read()
        writer.close()


def trusting(authority: Authority) -> ResumingContext:
    context = ResumingContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=authority.certificate)
    return context


async def visit(server: Server, *visits: tuple[ssl.SSLContext, str]) -> None:
    """Connections one after another, each read from and closed."""
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=server.context)
    endpoint = Endpoint(ip_address("127.0.0.1"), listening.sockets[0].getsockname()[1])
    try:
        for tls in visits:
            heard = Heard()
            async with asyncio.timeout(PATIENCE):
                transport = await dial(heard, AtOnce(), endpoint, PATIENCE, tls)
                transport.resume_reading()
                await heard.hears(b"hello")
                transport.close()
                await heard.hears("lost")
    finally:
        listening.close()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.create(tmp_path / "ca")


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_the_next_connection_for_a_name_is_resumed(
    authority: Authority, tmp_path: Path, loop: Loop, newest: ssl.TLSVersion
) -> None:
    """The server sees its session again, once for every connection that has ended."""
    server, tls = Server(authority, tmp_path, NAME, newest), (trusting(authority), NAME)
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(visit(server, tls, tls, tls))
    assert server.resumed == [False, True, True]


def test_what_is_not_trusted_any_more_is_checked_again(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session is resumed for so long after the certificate was checked, not after it was last resumed."""
    clock = iter([1000.0, 1500.0, 1000.0 + resumption.TRUSTED, 9000.0, 9001.0])
    monkeypatch.setattr(resumption, "monotonic", lambda: next(clock))
    server, tls = Server(authority, tmp_path, NAME, ssl.TLSVersion.TLSv1_3), (trusting(authority), NAME)
    asyncio.run(visit(server, tls, tls, tls, tls))
    assert server.resumed == [False, True, False, True]


def test_a_session_is_for_its_name_and_context_alone(authority: Authority, tmp_path: Path) -> None:
    """Another name proves itself by a certificate, and so does the same name to a context that trusts others."""
    server = Server(authority, tmp_path, "*.home.example", ssl.TLSVersion.TLSv1_3)
    tls = trusting(authority)
    asyncio.run(visit(server, (tls, NAME), (tls, "other.home.example"), (trusting(authority), NAME)))
    assert server.resumed == [False, False, False]


def test_a_server_that_cannot_resume_shows_its_certificate(authority: Authority, tmp_path: Path) -> None:
    """Whoever answers at the address next does not profit from what another server once showed."""
    other = Authority.create(tmp_path / "other")
    tls = (trusting(authority), NAME)
    asyncio.run(visit(Server(authority, tmp_path, NAME, ssl.TLSVersion.TLSv1_3), tls))
    with pytest.raises(ssl.SSLCertVerificationError):
        asyncio.run(visit(Server(other, tmp_path, NAME, ssl.TLSVersion.TLSv1_3), tls))
