"""The local certificate authority: what executors trust so that their TLS can be read.

Gets a directory of root's; hands on certificates for the names that executors ask for. The authority's key never leaves
this process and its file; a worker gets a leaf and that leaf's own key, which are worth a few days. Profile: RFC 5280;
limits on lifetime as clients enforce them.
"""

from __future__ import annotations

import os
import stat
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from enforcer.errors import ConfigError, HostError

KEY_FILE, CERTIFICATE_FILE = "ca.key", "ca.pem"
# The file of the authority before this one, whose certificates executors that still run may meet.
PREVIOUS_FILE = "ca-previous.pem"
# Years of an authority: as long as a host lives. `enforcer ca rotate` makes another before.
CA_DAYS = 3650
# Leaves are made anew when the supervisor starts. Clients refuse leaves of more than 398 days.
LEAF_DAYS = 7
# A client whose clock is behind must not find a certificate of tomorrow.
SKEW = timedelta(days=1)
# RFC 5280: at most 64 characters in a common name. Names are in the subject alternative name anyway.
_COMMON_NAME = 64


@dataclass(frozen=True, slots=True)
class Leaf:
    """A certificate for one name, with its key and chain, as one PEM text."""

    name: str
    pem: str


class Authority:
    """A CA's key and certificate. `certificate`: its PEM text. `fingerprint`: SHA-256 of its DER form, in hex."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
        self._key = key
        self._certificate = certificate
        self._leaf_key = ec.generate_private_key(ec.SECP256R1())
        self._leaf_pem = self._leaf_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode()
        self.certificate = certificate.public_bytes(serialization.Encoding.PEM).decode()
        self.fingerprint = certificate.fingerprint(hashes.SHA256()).hex()

    @property
    def not_after(self) -> datetime:
        return self._certificate.not_valid_after.replace(tzinfo=UTC)

    @property
    def name(self) -> str:
        return str(self._certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)

    @classmethod
    def open(cls, directory: Path) -> Authority:
        """The authority of `directory`, made at the first call. Raises ConfigError where its files are damaged or open
        to others, HostError where they cannot be read or written."""
        try:
            if not (directory / KEY_FILE).exists():
                return cls.create(directory)
            return cls._load(directory)
        except OSError as error:
            reason = f"cannot keep the certificate authority ({error.strerror}); check the path and its space"
            raise HostError(f"{directory}: {reason}") from error

    @classmethod
    def create(cls, directory: Path) -> Authority:
        """A new authority in place of the one there is, whose certificate stays as the previous one. Raises OSError."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory.chmod(0o700)
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        name = x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "enforcer"),
                x509.NameAttribute(NameOID.COMMON_NAME, f"enforcer on {os.uname().nodename}"[:_COMMON_NAME]),
            ]
        )
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - SKEW)
            .not_valid_after(now + timedelta(days=CA_DAYS))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        made = cls(key, certificate)
        if (directory / CERTIFICATE_FILE).exists():
            _write(directory / PREVIOUS_FILE, (directory / CERTIFICATE_FILE).read_bytes(), 0o644)
        # The key first: a certificate without its key would be taken for whole.
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        _write(directory / KEY_FILE, pem, 0o600)
        _write(directory / CERTIFICATE_FILE, made.certificate.encode(), 0o644)
        return made

    @classmethod
    def _load(cls, directory: Path) -> Authority:
        key_file, certificate_file = directory / KEY_FILE, directory / CERTIFICATE_FILE
        mode = key_file.stat()
        if mode.st_uid != os.geteuid() or stat.S_IMODE(mode.st_mode) & 0o077:
            raise ConfigError(f"{key_file} is open to others; chown root and chmod 600, and 'enforcer ca rotate'")
        mend = "restore it, or 'enforcer ca rotate' makes another"
        try:
            key = serialization.load_pem_private_key(key_file.read_bytes(), password=None)
            certificate = x509.load_pem_x509_certificate(certificate_file.read_bytes())
        except (ValueError, TypeError, UnsupportedAlgorithm, FileNotFoundError) as error:
            raise ConfigError(f"{directory}: the certificate authority is damaged ({error}); {mend}") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey) or _point(key.public_key()) != _point(
            certificate.public_key()
        ):
            raise ConfigError(f"{directory}: key and certificate of the authority do not belong together; {mend}")
        if certificate.not_valid_after.replace(tzinfo=UTC) < datetime.now(UTC):
            raise ConfigError(f"{certificate_file}: the authority has expired; 'enforcer ca rotate' makes another")
        return cls(key, certificate)

    def leaf(self, name: str) -> Leaf:
        """A server's certificate for a host name (A-labels) or an address."""
        now = datetime.now(UTC)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:_COMMON_NAME])])
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._certificate.subject)
            .public_key(self._leaf_key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - SKEW)
            .not_valid_after(min(now + timedelta(days=LEAF_DAYS), self.not_after))
            .add_extension(x509.SubjectAlternativeName([_general_name(name)]), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return Leaf(name, certificate.public_bytes(serialization.Encoding.PEM).decode() + self._leaf_pem)


def _point(key: object) -> ec.EllipticCurvePublicNumbers | None:
    return key.public_numbers() if isinstance(key, ec.EllipticCurvePublicKey) else None


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _write(path: Path, data: bytes, mode: int) -> None:
    """Aside, synced, renamed: there is the old file or the new one, and never one that others can read meanwhile."""
    descriptor, aside = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)
        Path(aside).rename(path)
    except BaseException:
        Path(aside).unlink(missing_ok=True)
        raise
