"""Step 4 of 6, inspect: what means the same in every version of HTTP (RFC 9110): whom a request is for, and a
denial in words. Never parses a version's own framing."""

from __future__ import annotations

import ipaddress
import json
import re
from functools import lru_cache
from http import HTTPStatus

from enforcer.verdict import Denial

# uri-host [":" port] without userinfo, percent-encoding, zone ids or anything beyond letters, digits, `-`, `_`, `.`:
# real host names, on which every reader agrees (RFC 9110 section 7.2).
_AUTHORITY = re.compile(
    r"(?:\[([0-9A-Fa-f:.]{2,45})\]|([A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,253}[A-Za-z0-9_])?)\.?)(?::([0-9]{0,5}))?"
)
# RFC 9457, section 4.2.1: `about:blank` says no more than the status itself does.
PROBLEM_TYPES = {HTTPStatus.FORBIDDEN: "urn:enforcer:egress-denied"}


@lru_cache(maxsize=1024)
def read_authority(value: bytes, default_port: int) -> tuple[str, int] | None:
    """Host (lower case, no port, trailing dot or brackets) and port of `value`, None where it is not plainly one."""
    if not value.isascii() or (match := _AUTHORITY.fullmatch(value.decode("ascii"))) is None:
        return None
    literal, name, digits = match.groups()
    port = int(digits) if digits else default_port
    if port > 0xFFFF:
        return None
    if literal is None:
        return None if ".." in name else (name.lower(), port)
    try:
        return str(ipaddress.IPv6Address(literal)), port
    except ValueError:
        return None


def problem(status: HTTPStatus, denial: Denial) -> bytes:
    """Problem details (RFC 9457) that people and programs can read."""
    details = {
        "type": PROBLEM_TYPES.get(status, "about:blank"),
        "title": denial.title,
        "status": status.value,
        "detail": denial.explanation,
        "destination": denial.destination,
        "region": denial.region,
        "prefix": denial.prefix,
        "policy": denial.policy,
        "rule": denial.rule,
        "reason": denial.reason,
        "session": denial.session,
        "exchange": denial.exchange,
        "how_to_ask": denial.how_to_ask,
    }
    return json.dumps(details, indent=2).encode("ascii") + b"\n"
