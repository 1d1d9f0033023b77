"""The Java keystore that JVMs in executors read: the form is what Java's own keytool writes."""

from __future__ import annotations

import hashlib
import ssl
import struct
from base64 import b64decode
from pathlib import Path

import pytest

from enforcer.config import Settings
from enforcer.supervisor.trust import write_bundle
from enforcer.tls.authority import Authority
from enforcer.tls.keystore import PASSWORD, java_keystore

# Written by keytool of OpenJDK 17: one trusted certificate, alias "one", password "changeit".
BY_KEYTOOL = b64decode("""
/u3+7QAAAAIAAAABAAAAAgADb25lAAABogPtp3EABVguNTA5AAABczCCAW8wggEVoAMCAQICFBTo1UhLPHPluQju28ghcT1A++j4
MAoGCCqGSM49BAMCMAwxCjAIBgNVBAMMAWEwIBcNMjYxMTIyMTU0MzU1WhgPMjEyNjEwMjkxNTQzNTVaMAwxCjAIBgNVBAMMAWEw
WTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAASz3soZtTxugp9oseXgmjpm1FEus482GVNKAE/x+iMMBLdlQfjhtGDy/Kn71keQBoZA
ruSJvPwX0ue5hMzkvMDTo1MwUTAdBgNVHQ4EFgQUJ+sKZ5llsnWdvt834cKLczO37cgwHwYDVR0jBBgwFoAUJ+sKZ5llsnWdvt83
4cKLczO37cgwDwYDVR0TAQH/BAUwAwEB/zAKBggqhkjOPQQDAgNIADBFAiAkdT6nt+2FANvXDgDLe7zX2R4yfDzmr9fTG135BgsV
bQIhAIL7DA9deSMlYDzL5PVbscLJmBgVQX8SIos47F4vFxgH+6sSe7JFN+XZSmOC5QaCd2WCqWg=
""")


def entries(store: bytes) -> list[tuple[str, bytes]]:
    """(alias, certificate) of each trusted entry of a JKS store whose checksum is right."""
    checksum = hashlib.sha1("changeit".encode("utf-16-be") + b"Mighty Aphrodite" + store[:-20], usedforsecurity=False)
    assert store[-20:] == checksum.digest()
    magic, version, count = struct.unpack_from(">III", store)
    assert (magic, version) == (0xFEEDFEED, 2)
    at, found = 12, []
    for _ in range(count):
        kind, length = struct.unpack_from(">IH", store, at)
        alias = store[at + 6 : at + 6 + length].decode()
        at += 6 + length + 8
        (length,) = struct.unpack_from(">H", store, at)
        assert (kind, store[at + 2 : at + 2 + length]) == (2, b"X.509")
        at += 2 + length
        (length,) = struct.unpack_from(">I", store, at)
        found.append((alias, store[at + 4 : at + 4 + length]))
        at += 4 + length
    assert at == len(store) - 20
    return found


def test_it_has_the_form_that_keytool_writes() -> None:
    """Of the certificate in a store of keytool's we make the same store, but for alias and date."""
    ((alias, der),) = entries(BY_KEYTOOL)
    assert alias == "one"
    made = java_keystore(ssl.DER_cert_to_PEM_cert(der))
    assert entries(made) == [("authority-0", der)]
    assert len(made) - len("authority-0") == len(BY_KEYTOOL) - len("one")
    assert PASSWORD == "changeit"


def test_nothing_but_certificates_gets_in(tmp_path: Path) -> None:
    """Comments, keys and other blocks around them are left out; one that is not base64 is a fault."""
    pem = Authority.open(tmp_path).certificate
    key = (tmp_path / "ca.key").read_text()
    der = ssl.PEM_cert_to_DER_cert(pem)
    assert [one for _, one in entries(java_keystore(f"# ours\n{key}{pem}\nand {pem}"))] == [der, der]
    assert entries(java_keystore("")) == []
    with pytest.raises(ValueError, match="padding"):
        java_keystore("-----BEGIN CERTIFICATE-----\nMII\n-----END CERTIFICATE-----\n")


def test_both_files_hold_the_same_and_follow_a_rotation(tmp_path: Path) -> None:
    """What is in the PEM bundle is in the keystore, in the same files after a rotation, where both authorities are."""
    settings = Settings(root=tmp_path)
    first = Authority.open(settings.authority)
    write_bundle(settings, first)
    files = (settings.trust_bundle, settings.java_trust)
    inodes = [path.stat().st_ino for path in files]
    second = Authority.create(settings.authority)
    write_bundle(settings, second)
    assert [path.stat().st_ino for path in files] == inodes
    assert [path.stat().st_mode & 0o777 for path in files] == [0o644, 0o644]
    held = [ssl.DER_cert_to_PEM_cert(one).strip() for _, one in entries(settings.java_trust.read_bytes())]
    assert held[-2:] == [second.certificate.strip(), first.certificate.strip()]
    assert len(held) == settings.trust_bundle.read_text().count("BEGIN CERTIFICATE")
