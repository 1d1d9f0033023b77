"""Reports that an auditor can file: what was tried on which host, what came of it, signed by a key of that host.

A report is one line of canonical JSON (keys sorted, no spaces, no floating point): `report`, and `signature` over the
canonical form of `report` alone, Ed25519, as hexadecimal. The public key is part of what is signed; whose key it is,
only its fingerprint can tell, compared with one that came another way.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from enforcer.compiled import PARTS, running_from
from enforcer.errors import EnforcerError, HostError
from enforcer.probe.catalogue import CATALOGUE
from enforcer.probe.results import Attempt, Finding, Result

FORMAT = "enforcer-probe-report-1"
# What counts as source; build products do not.
_SOURCES = frozenset({".py", ".c", ".h", ".yaml"})
_KEY_NAME = "probe.key"


def compose(results: Sequence[Result], begun: datetime, ended: datetime) -> dict[str, Any]:
    """The report's body, without key and signature."""
    counts = Counter(result.finding for result in results)
    tried = {result.technique for result in results}
    return {
        "format": FORMAT,
        "host": {
            "name": platform.node(),
            "kernel": platform.release(),
            "kernel_version": platform.version(),
            "machine": platform.machine(),
            "boot": _read("/proc/sys/kernel/random/boot_id"),
            "security_modules": _read("/sys/kernel/security/lsm"),
        },
        "enforcer": {"version": version("enforcer"), "source_sha256": source_fingerprint(running_from())},
        "begun": _stamp(begun),
        "ended": _stamp(ended),
        "modes": sorted({result.mode for result in results}),
        "users": sorted({result.user for result in results}),
        "catalogue": len(CATALOGUE),
        "whole_catalogue": tried == {one.name for one in CATALOGUE},
        "counts": {finding.value: counts[finding] for finding in Finding},
        "results": [_row(result) for result in results],
    }


def _row(result: Result) -> dict[str, Any]:
    return {
        "technique": result.technique,
        "group": result.group,
        "mode": result.mode,
        "user": result.user,
        "finding": result.finding.value,
        "reason": result.reason,
        "milliseconds": round(result.seconds * 1000),
        "control": _evidence(result.control),
        "inside": _evidence(result.inside),
    }


def _evidence(attempt: Attempt) -> dict[str, Any]:
    return {**asdict(attempt), "outcome": attempt.outcome.value, "frames": list(attempt.frames)}


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _stamp(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def source_fingerprint(tree: Path) -> str:
    """SHA-256 over every source file of what runs, by path and content."""
    digest = hashlib.sha256()
    for part in PARTS:
        for path in sorted((tree / part).rglob("*")):
            if path.suffix in _SOURCES:
                digest.update(f"{path.relative_to(tree)}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def canonical(document: Any) -> bytes:
    """The one way to write a document down."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def host_key(state: Path) -> Ed25519PrivateKey:
    """This host's key for reports, made at first use and readable by root only. Raises HostError."""
    path = state / _KEY_NAME
    try:
        if not path.exists():
            _make_key(path)
        return Ed25519PrivateKey.from_private_bytes(bytes.fromhex(path.read_text()))
    except (OSError, ValueError) as error:
        raise HostError(f"no key for reports at {path}: {error}; remove the file to have a new one made") from error


def _make_key(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    raw = Ed25519PrivateKey.generate().private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
    # Whole or not at all, and never open to others, not even for a moment.
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(raw.hex())
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)


def fingerprint(public_key: bytes) -> str:
    """What names a key: SHA-256 of its 32 raw bytes."""
    return hashlib.sha256(public_key).hexdigest()


def sign(body: dict[str, Any], key: Ed25519PrivateKey) -> bytes:
    """The signed report, as it is filed."""
    public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    report = {**body, "public_key": public.hex(), "key_fingerprint": fingerprint(public)}
    return canonical({"report": report, "signature": key.sign(canonical(report)).hex()}) + b"\n"


def verify(path: Path, expected: str | None = None) -> dict[str, Any]:
    """The report in a file. `expected`: fingerprint of the key that must have signed it.

    Raises EnforcerError when it was altered, is no report, or is signed by another key.
    """
    try:
        raw = path.read_bytes()
        document = json.loads(raw)
        report: dict[str, Any] = document["report"]
        signature, public = bytes.fromhex(document["signature"]), bytes.fromhex(report["public_key"])
        key = Ed25519PublicKey.from_public_bytes(public)
    except OSError as error:
        raise EnforcerError(f"cannot read {path}: {error.strerror}; name a file written by --report") from error
    except (ValueError, KeyError, TypeError) as error:
        raise EnforcerError(f"{path} is not a report ({error!r}); name a file written by --report") from error
    try:
        key.verify(signature, canonical(report))
    except InvalidSignature:
        raise EnforcerError(f"{path} was altered: its signature does not fit; ask for the original") from None
    # Another spelling of the same document could show a reader what was not signed, such as a name given twice.
    if raw != canonical(document) + b"\n" or document.keys() != {"report", "signature"}:
        raise EnforcerError(f"{path} was altered: it is not in canonical form; ask for the original")
    found = fingerprint(public)
    if report.get("format") != FORMAT or report.get("key_fingerprint") != found:
        raise EnforcerError(f"{path} is not a report of format {FORMAT}; use the version that wrote it")
    if expected is not None and found != expected.strip().lower():
        raise EnforcerError(f"{path} is signed by {found}, not by {expected}; it comes from another host")
    return report
