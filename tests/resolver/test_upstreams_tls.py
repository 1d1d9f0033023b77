"""Upstreams over TLS: one connection for many questions, and only where the certificate is the right one."""

from __future__ import annotations

import asyncio
import datetime
import ssl
from ipaddress import ip_address
from pathlib import Path

import dns.rcode
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from enforcer.resolver.wire import Ede
from tests.resolver.stage import DE, Stage, Upstream, addresses, allow, awaited, told_why

NAME = "dns.example"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for NAME and its key in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
    now = datetime.datetime.now(datetime.UTC)
    names = x509.SubjectAlternativeName([x509.DNSName(NAME), x509.IPAddress(ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(secret + made.public_bytes(serialization.Encoding.PEM))
    return path


@pytest.fixture
def trusted(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This host's trust store holds it."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    return certificate


async def encrypted(certificate: Path) -> Upstream:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    upstream = Upstream()
    upstream.zone["db.example."] = {"A": [DE]}
    return await upstream.open(tls=context)


@awaited
async def test_many_questions_share_one_connection(trusted: Path) -> None:
    """Opened at the first, and used by those that come together and after each other."""
    upstream = await encrypted(trusted)
    async with Stage(allow()) as stage:
        stage.servers = [("127.0.0.1", upstream.port, NAME)]
        stage.generate(2, stage.policies)
        answers = await asyncio.gather(
            stage.ask("db.example"), *(stage.ask(f"n{number}.example") for number in range(5))
        )
        assert addresses(answers[0]) == [DE]
        await stage.ask("last.example")
        assert (len(upstream.asked), upstream.streams) == (7, 1)
        assert stage.upstream.asked == []
        # Of the last one: the first had to wait for the connection, so its row may have left before its answer.
        (last,) = [one for one in stage.exchanges() if one["text"].startswith("last.example")]
        assert last["facts"]["from"].endswith(f":{upstream.port} ({NAME})")
        stage.generate(3, stage.policies, upstreams=[])
    upstream.close()


@awaited
async def test_a_connection_that_ended_is_opened_again(trusted: Path) -> None:
    """The upstream closes it between two questions."""
    upstream = await encrypted(trusted)
    async with Stage(allow()) as stage:
        stage.servers = [("127.0.0.1", upstream.port, NAME)]
        stage.generate(2, stage.policies)
        assert addresses(await stage.ask("db.example")) == [DE]
        (connection,) = stage.answerer._upstreams._encrypted.values()
        connection.close()
        assert (await stage.ask("other.example")).rcode() == dns.rcode.NXDOMAIN
        assert upstream.streams == 2
        stage.generate(3, stage.policies, upstreams=[])
    upstream.close()


@pytest.mark.parametrize("wrong", ["the name", "the issuer"])
def test_a_wrong_certificate_gets_no_question(certificate: Path, wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of another name, or from somebody this host does not trust: SERVFAIL, and it never learns what was asked."""
    if wrong == "the name":
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))

    async def run() -> None:
        upstream = await encrypted(certificate)
        async with Stage(allow()) as stage:
            stage.servers = [("127.0.0.1", upstream.port, "other.example" if wrong == "the name" else NAME)]
            stage.generate(2, stage.policies)
            answer = await stage.ask("db.example")
            code, why = told_why(answer)
            assert (answer.rcode(), code) == (dns.rcode.SERVFAIL, Ede.NETWORK)
            assert "certificate: " in why
            assert upstream.asked == []
        upstream.close()

    asyncio.run(run())
