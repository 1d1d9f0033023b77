"""Steps 1 and 5 of 6, capture and forward: TLS ends here, on both sides, so that what is inside can be judged.

Gets a client's connection and the ClientHello it began with; hands plain bytes to the session and is the session's
transport for what goes back. The certificate for the name is made by the supervisor, which alone has the authority's
key. Towards the server the name is proven by the certificate the server shows.
"""

from __future__ import annotations

import asyncio
import errno
import os
import ssl
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Protocol

from enforcer.flow import Address
from enforcer.policy.destinations import canonical_host
from enforcer.proxy.resumption import ResumingContext

# Certificates kept per worker. An agent talks to some dozen names.
KEPT = 1024
# Names that wait for their certificate at once; more are refused.
PENDING = 256
# Bytes of plain text taken at once: four records (RFC 8446 section 5.1).
_CHUNK = 65536
# What is spoken inside that we read, by the names of RFC 7301's registry.
H2, HTTP1, POSTGRES = "h2", "http/1.1", "postgresql"
READ = (H2, HTTP1, POSTGRES)


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """`authority`: fingerprint of the one in force. `trust`: PEM text of what else than the system's authorities may
    have signed a server's certificate. `client_certificates`: (host or `*.suffix`, PEM of certificate and key)."""

    intercept: bool
    authority: str
    trust: str = ""
    client_certificates: tuple[tuple[str, str], ...] = ()


class PlainSide(Protocol):
    """What a session does with what was inside."""

    def client_plain(self, data: bytes) -> None: ...
    def client_plain_eof(self) -> None: ...
    def secured(self, version: str, alpn: str) -> None: ...
    def insecure(self, reason: str) -> None: ...


@dataclass(slots=True)
class Secured:
    """A session whose TLS ends here. `name`: the server's, of the ClientHello, empty where it has none. `offered`: what
    the server is offered (ALPN): what the client offers and we read; after its handshake, what it was answered. `alpn`
    is that answer, empty where there is none. `version`: of the client's TLS, empty until the handshake is done.
    `within`: a protocol that was spoken in clear goes on inside; its servers need not know ALPN."""

    name: str
    offered: tuple[str, ...] = ()
    alpn: str = ""
    version: str = ""
    within: bool = False


def name_inside(secured: Secured, facts: dict[str, str]) -> str:
    """Completes `facts` with what TLS says: the server's name, which its certificate will prove, and the version.

    Returns what is wrong where a request inside is for another host than the connection (RFC 9110 section 7.4 calls it
    misdirected), else an empty text.
    """
    facts["tls"] = secured.version
    host = facts.setdefault("host", secured.name) if secured.name else facts.get("host", "")
    if secured.name and canonical_host(host) != secured.name:
        return f"the request is for {host[:100]!r}, the TLS connection for {secured.name!r}"
    return ""


def another_address(name: str, address: Address) -> str:
    """What is wrong with an address as the server's name: it may only be the one that is connected to."""
    try:
        named = ip_address(name)
    except ValueError:
        return ""
    return "" if named == address else f"the TLS connection is for {name}, which is not where it goes"


def agree(secured: Secured, server: asyncio.Transport) -> None:
    """Raises OSError where the server speaks something else than its client was answered."""
    chosen = server.get_extra_info("ssl_object").selected_alpn_protocol()
    if secured.within and not chosen:
        return
    if (chosen or HTTP1) != (secured.alpn or HTTP1):
        server.abort()
        raise ConnectionError(errno.EPROTO, f"it does not speak {secured.alpn or HTTP1} (ALPN)")


class Certificates:
    """The contexts of a worker: for clients one per name and protocol, and those for servers. They are kept, for what
    it takes to resume a session is in its context, on either side.

    `ask` sends the supervisor a name; its answer comes to `learn`.
    """

    def __init__(self, ask: Callable[[str], None]) -> None:
        self._ask = ask
        self._pems: OrderedDict[str, str] = OrderedDict()
        self._contexts: dict[str, dict[str, ssl.SSLContext]] = {}
        self._waiting: dict[str, list[Callable[[], None]]] = {}
        self._settings: TlsSettings | None = None
        self._own: dict[str, str] = {}
        self._upstream: dict[tuple[str, tuple[str, ...]], ssl.SSLContext] = {}

    @property
    def intercepting(self) -> bool:
        return self._settings is not None and self._settings.intercept

    def configure(self, settings: TlsSettings) -> None:
        """What a generation says. Leaves of another authority are forgotten. Raises ssl.SSLError for a bad PEM text."""
        if settings == self._settings:
            return
        if self._settings is None or settings.authority != self._settings.authority:
            self._pems.clear()
            self._contexts.clear()
        self._upstream.clear()
        self._own = {"": "", **dict(settings.client_certificates)}
        self._settings = settings
        for host in self._own:
            self._for_server(host, READ)  # what is wrong with the settings is said now, and takes time now

    def fetch(self, name: str, then: Callable[[], None]) -> None:
        """Calls `then` when it is known whether there is a certificate for `name`, which may be now."""
        if name in self._pems:
            self._pems.move_to_end(name)
            then()
        elif name in self._waiting:
            self._waiting[name].append(then)
        elif len(self._waiting) >= PENDING:
            then()
        else:
            self._waiting[name] = [then]
            self._ask(name)

    def context(self, name: str, alpn: str) -> ssl.SSLContext | None:
        """To be `name` for a client, which is answered `alpn`, or nothing where that is empty; None where there is no
        certificate."""
        pem = self._pems.get(name)
        if pem is None:
            return None
        contexts = self._contexts.setdefault(name, {})
        if alpn not in contexts:
            contexts[alpn] = _server_context(pem, alpn)
        return contexts[alpn]

    def learn(self, name: str, pem: str) -> None:
        """The supervisor's answer: chain and key, or an empty text where it could not make them."""
        if pem:
            self._pems[name] = pem
            while len(self._pems) > KEPT:
                self._contexts.pop(self._pems.popitem(last=False)[0], None)
        for then in self._waiting.pop(name, ()):
            then()

    def upstream(self, name: str, offered: tuple[str, ...]) -> ssl.SSLContext:
        """For a connection to the server `name`, which is `offered` protocols: the system's authorities and the
        operator's, the name checked, with the operator's certificate for it where there is one."""
        labels = name.split(".")
        wildcards = (f"*.{'.'.join(labels[at:])}" for at in range(1, len(labels)))
        return self._for_server(next((one for one in (name, *wildcards) if one in self._own), ""), offered)

    def _for_server(self, host: str, offered: tuple[str, ...]) -> ssl.SSLContext:
        context = self._upstream.get((host, offered))
        if context is None:
            trust = self._settings.trust if self._settings is not None else ""
            context = self._upstream[host, offered] = _client_context(trust, self._own[host], offered)
        return context


def _server_context(pem: str, alpn: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if alpn:
        context.set_alpn_protocols([alpn])
    _load_chain(context, pem)
    return context


def _client_context(trust: str, pem: str, offered: tuple[str, ...]) -> ssl.SSLContext:
    context = ResumingContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if offered:
        context.set_alpn_protocols(list(offered))
    if trust:
        context.load_verify_locations(cadata=trust)
    if pem:
        _load_chain(context, pem)
    return context


def _load_chain(context: ssl.SSLContext, pem: str) -> None:
    """The ssl module reads certificates from paths only; this one is in memory, and ours alone."""
    descriptor = os.memfd_create("certificate", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, pem.encode())
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


class TlsLayer:
    """Between a client's transport and its session. Towards the session it is the transport."""

    def __init__(self, session: PlainSide, transport: asyncio.Transport, context: ssl.SSLContext) -> None:
        self._session = session
        self._transport = transport
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._established = False
        self._over = False

    # --- from the network

    def receive(self, data: bytes) -> None:
        """Bytes of the client, from the first of its ClientHello on."""
        if self._over:
            return
        self._incoming.write(data)
        try:
            if not self._established:
                self._tls.do_handshake()
                self._established = True
                self._session.secured(self._tls.version() or "", self._tls.selected_alpn_protocol() or "")
            while plain := self._tls.read(_CHUNK):
                self._session.client_plain(plain)
            self.receive_eof()
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.receive_eof()
        except ssl.SSLError as error:
            self._over = True
            self._flush()
            self._session.insecure(_words(error))
        self._flush()

    def receive_eof(self) -> None:
        """Many clients end without the closing alert; where more had to come, the session sees that it is missing."""
        if not self._over:
            self._over = True
            self._session.client_plain_eof()

    # --- the session's transport

    def write(self, data: bytes) -> None:
        self._tls.write(data)
        self._flush()

    def write_eof(self) -> None:
        """Says in TLS and then in TCP that no more follows."""
        self._close_notify()
        if not self._transport.is_closing():
            self._transport.write_eof()

    def can_write_eof(self) -> bool:
        return True

    def close(self) -> None:
        self._close_notify()
        self._transport.close()

    def abort(self) -> None:
        self._transport.abort()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()

    def _close_notify(self) -> None:
        if self._established and not self._transport.is_closing():
            with suppress(ssl.SSLError):  # the client's own closing alert has not come, and need not
                self._tls.unwrap()
            self._flush()

    def _flush(self) -> None:
        data = self._outgoing.read()
        if data and not self._transport.is_closing():
            self._transport.write(data)


def _words(error: ssl.SSLError) -> str:
    """What ended a handshake or a connection, for the record."""
    reason = (error.reason or str(error)).replace("_", " ").lower()
    if "alert" in reason and ("unknown ca" in reason or "bad certificate" in reason or "certificate unknown" in reason):
        return f"the client does not trust the enforcer's authority ({reason}); docs/executors.md says how"
    return f"TLS with the client failed ({reason})"
