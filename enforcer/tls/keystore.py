"""Authorities as a Java keystore: what JVMs read in place of PEM text.

Gets PEM text; hands on a store in JKS form, which every version of Java reads, also without a password. The same
authorities always make the same bytes.
"""

from __future__ import annotations

import hashlib
import re
import ssl

# What Java's own store has as its password, which tools suppose. It keeps nothing secret: certificates are public.
PASSWORD = "changeit"  # noqa: S105
# The form has no specification but its reader's source (OpenJDK, sun.security.provider.JavaKeyStore).
_MAGIC, _VERSION, _TRUSTED_CERTIFICATE = 0xFEEDFEED, 2, 2
_WHITENER = b"Mighty Aphrodite"
_CERTIFICATE = re.compile("-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


def java_keystore(pem: str) -> bytes:
    """All certificates of `pem` as trusted entries. Raises ValueError for one that is not base64."""
    certificates = [ssl.PEM_cert_to_DER_cert(text) for text in _CERTIFICATE.findall(pem)]
    entries = b"".join(_entry(f"authority-{number}", one) for number, one in enumerate(certificates))
    store = _number(_MAGIC) + _number(_VERSION) + _number(len(certificates)) + entries
    # A checksum rather than a signature: it goes by a password that everybody knows. SHA-1 is what the form has.
    checksum = hashlib.sha1(PASSWORD.encode("utf-16-be") + _WHITENER + store, usedforsecurity=False)
    return store + checksum.digest()


def _entry(alias: str, der: bytes) -> bytes:
    since = bytes(8)  # milliseconds since 1970, shown to nobody
    return _number(_TRUSTED_CERTIFICATE) + _text(alias) + since + _text("X.509") + _number(len(der)) + der


def _number(value: int) -> bytes:
    return value.to_bytes(4, "big")


def _text(value: str) -> bytes:
    raw = value.encode("ascii")
    return len(raw).to_bytes(2, "big") + raw
