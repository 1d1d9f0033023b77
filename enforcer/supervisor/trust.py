"""TLS that ends here: what workers need for it, and what executors have to trust.

Gets the configuration; hands on the authority, certificates and authorities as text, read whole or refused, and writes
the files that executors see in place of the system's.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from enforcer.config import Settings
from enforcer.errors import ConfigError, HostError
from enforcer.isolation.filesystem import SYSTEM_BUNDLES
from enforcer.tls.authority import PREVIOUS_FILE, Authority
from enforcer.tls.keystore import java_keystore

# Bytes of certificates that one message to a worker holds, beside the rest of it.
LIMIT = 48 * 1024


@dataclass(frozen=True, slots=True)
class Trust:
    """`authority`: None where TLS is not to end here. `upstream`: PEM of further authorities for servers.
    `client_certificates`: (host or `*.suffix`, PEM of certificate and key)."""

    authority: Authority | None
    upstream: str = ""
    client_certificates: tuple[tuple[str, str], ...] = ()

    def for_process(self) -> dict[str, Any]:
        return {
            "intercept": self.authority is not None,
            "authority": self.authority.fingerprint if self.authority else "",
            "trust": self.upstream,
            "client_certificates": self.client_certificates,
        }


def read(settings: Settings) -> Trust:
    """Raises ConfigError with one line per fault, HostError."""
    chosen = settings.tls
    upstream = "".join(_pem("tls.trust", path) for path in chosen.trust)
    certificates = []
    for one in chosen.client_certificates:
        where = f"tls.client_certificates: {one.host}"
        pem = _pem(where, one.certificate) + _pem(where, one.key)
        _check_pair(where, one.certificate, one.key)
        certificates.append((one.host, pem))
    if len(upstream) + sum(len(pem) for _, pem in certificates) > LIMIT:
        raise ConfigError(f"tls: more than {LIMIT // 1024} KiB of certificates; name fewer")
    _check_authorities(upstream)
    authority = Authority.open(settings.authority) if chosen.intercept else None
    return Trust(authority, upstream, tuple(certificates))


def _pem(where: str, path: Path) -> str:
    try:
        text = path.read_text(encoding="ascii")
    except OSError as error:
        raise ConfigError(f"{where}: cannot read {path} ({error.strerror})") from error
    except UnicodeDecodeError:
        raise ConfigError(f"{where}: {path} is not PEM text; convert it with openssl") from None
    return text if text.endswith("\n") else text + "\n"


def _check_authorities(pem: str) -> None:
    if pem:
        try:
            ssl.create_default_context(cadata=pem)
        except ssl.SSLError as error:
            raise ConfigError(f"tls.trust: no certificates in PEM form ({error.reason}); convert them") from error


def _check_pair(where: str, certificate: Path, key: Path) -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(certificate, key, password="")
    except (ssl.SSLError, OSError) as error:
        reason = getattr(error, "reason", "") or error.strerror
        raise ConfigError(
            f"{where}: {certificate} and {key} are no pair ({reason}); a key has no passphrase"
        ) from error


def write_bundle(settings: Settings, authority: Authority) -> None:
    """The system's authorities and ours, as executors see them: as PEM text, and as a keystore for Java. Raises
    HostError."""
    path = settings.trust_bundle
    own = authority.certificate
    previous = settings.authority / PREVIOUS_FILE
    try:
        if previous.exists():
            own += previous.read_text()
        system = next((bundle.read_text() for bundle in SYSTEM_BUNDLES if bundle.is_file()), "")
        text = (system if system.endswith("\n") or not system else system + "\n") + own
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        _write(path, text.encode())
        path = settings.java_trust
        _write(path, java_keystore(text))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise HostError(f"{path}: cannot write the authorities that executors trust ({reason})") from error


def _write(path: Path, data: bytes) -> None:
    """In place: executors that run have this very file mounted."""
    if not path.exists() or path.read_bytes() != data:
        with path.open("r+b" if path.exists() else "wb") as stream:
            stream.write(data)
            stream.truncate()
    path.chmod(0o644)
