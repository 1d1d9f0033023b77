"""Step 5 of 6, forward: TLS sessions of servers, kept to be resumed (RFC 8446 section 2.2, RFC 5246 section 7.3).

Gets a connection that has ended; hands its session to the next one for the same name. A server that resumes shows no
certificate: that it can is the proof that it is who showed one, for as long as `TRUSTED`.
"""

from __future__ import annotations

import ssl
from collections import OrderedDict
from dataclasses import dataclass
from time import monotonic
from typing import cast

TRUSTED = 3600.0
"""Seconds in which a certificate, once checked, need not be shown again, however often its session is resumed."""
_NAMES = 256
_EACH = 4
"""Sessions kept of a name: as many connections at once as resume. Each is used once (RFC 8446 appendix C.4)."""


@dataclass(frozen=True, slots=True)
class _Kept:
    session: ssl.SSLSession
    checked: float


class ResumableTls(ssl.SSLObject):
    """One connection to a server. `checked`: seconds of the monotonic clock when the server's certificate was."""

    checked: float

    def keep(self) -> None:
        """Has its session resumed by a later connection for the same name. To be called at the end: in TLS 1.3, what
        resuming takes comes after the handshake."""
        if isinstance(self.context, ResumingContext) and self.server_hostname:
            self.context.keep(self.server_hostname, self)


class ResumingContext(ssl.SSLContext):
    """For connections to servers: as `ssl.create_default_context`, and resumes sessions that were kept. These are its
    own: another context, which may trust others or show another certificate, knows none of them."""

    sslobject_class = ResumableTls

    def __init__(self, _protocol: int) -> None:
        self._kept: OrderedDict[str, list[_Kept]] = OrderedDict()
        self.load_default_certs(ssl.Purpose.SERVER_AUTH)

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ResumableTls:
        kept = self._take(str(server_hostname))
        session = kept.session if kept else session
        made = cast("ResumableTls", super().wrap_bio(incoming, outgoing, server_side, server_hostname, session))
        made.checked = kept.checked if kept else 0.0
        return made

    def keep(self, name: str, connection: ResumableTls) -> None:
        session = connection.session
        if session is None or not (session.has_ticket or session.id):
            return
        checked = connection.checked if connection.session_reused else monotonic()
        of_name = self._kept.setdefault(name, [])
        of_name.append(_Kept(session, checked))
        del of_name[:-_EACH]
        self._kept.move_to_end(name)
        if len(self._kept) > _NAMES:
            self._kept.popitem(last=False)

    def _take(self, name: str) -> _Kept | None:
        """The newest: a server forgets the oldest first. It is gone, so that one that cannot be resumed stands in the
        way of a single connection."""
        of_name = self._kept.get(name, [])
        while of_name:
            kept = of_name.pop()
            if monotonic() - kept.checked < TRUSTED:
                return kept
        self._kept.pop(name, None)
        return None
