"""The local authority: its files, its certificates, and what strict readers say of them."""

from __future__ import annotations

import ssl
import stat
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from enforcer.errors import HostError
from enforcer.tls.authority import LEAF_DAYS, Authority


def leaf_of(authority: Authority, name: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(authority.leaf(name).pem.encode())


def test_it_is_made_once(tmp_path: Path) -> None:
    """The second look finds the first one's key; both files are there, the key root's alone."""
    first, second = Authority.open(tmp_path / "tls"), Authority.open(tmp_path / "tls")
    assert first.fingerprint == second.fingerprint
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "tls").iterdir()}
    assert modes == {"ca.key": 0o600, "ca.pem": 0o644}


def test_openssl_finds_nothing_wrong(tmp_path: Path) -> None:
    """The chain holds under its strict rules (RFC 5280), for long names and for addresses."""
    authority = Authority.open(tmp_path)
    (tmp_path / "root.pem").write_text(authority.certificate)
    long = ".".join(["a" * 60] * 4)
    for name in ("api.example", long, "xn--bcher-kva.example", "_x.example", "3.120.0.10", "2a05:d014::10"):
        (tmp_path / "leaf.pem").write_text(authority.leaf(name).pem)
        command = ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", "root.pem", "leaf.pem"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_a_client_that_trusts_it_accepts_the_name_and_no_other(tmp_path: Path) -> None:
    """Python's own check of names and addresses, in a handshake in memory."""
    authority = Authority.open(tmp_path)
    (tmp_path / "leaf.pem").write_text(authority.leaf("api.example").pem)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(tmp_path / "leaf.pem")
    client = ssl.create_default_context(cadata=authority.certificate)
    assert shake(client, server, "api.example") == ""
    assert "Hostname mismatch" in shake(client, server, "other.example")
    assert "unable to get local issuer" in shake(ssl.create_default_context(), server, "api.example")


def shake(client: ssl.SSLContext, server: ssl.SSLContext, name: str) -> str:
    """What the client says of the server's certificate; nothing where it is content."""
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(back, there, server_hostname=name)
    theirs = server.wrap_bio(there, back, server_side=True)
    for _ in range(5):
        for side in (ours, theirs):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLCertVerificationError as error:
                return error.verify_message
    return ""


def test_a_leaf_lives_for_days_and_never_longer_than_its_authority(tmp_path: Path) -> None:
    """Valid since yesterday, for clocks that are behind."""
    leaf = leaf_of(Authority.open(tmp_path), "api.example")
    now = datetime.now(UTC).replace(tzinfo=None)
    assert leaf.not_valid_before < now - timedelta(hours=23)
    assert now + timedelta(days=LEAF_DAYS - 1) < leaf.not_valid_after < now + timedelta(days=LEAF_DAYS + 1)


def test_it_cannot_sign_another_authority(tmp_path: Path) -> None:
    """A path length of 0, and leaves that sign nothing."""
    authority = Authority.open(tmp_path)
    own = x509.load_pem_x509_certificate(authority.certificate.encode())
    assert own.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length == 0
    leaf = leaf_of(authority, "api.example").extensions
    assert not leaf.get_extension_for_class(x509.BasicConstraints).value.ca
    assert not leaf.get_extension_for_class(x509.KeyUsage).value.key_cert_sign


def test_a_directory_that_cannot_be_is_one_line(tmp_path: Path) -> None:
    """Where a file is in the way."""
    (tmp_path / "file").write_text("")
    with pytest.raises(HostError, match="cannot keep the certificate authority"):
        Authority.open(tmp_path / "file" / "tls")
