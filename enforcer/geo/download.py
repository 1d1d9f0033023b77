"""Step 1 of 6, capture: fetches a table over HTTPS, whole or not at all. Gets a URL, hands on the bytes; never judges
what is in them."""

from __future__ import annotations

import ssl
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, HTTPSHandler, OpenerDirector, Request, build_opener

from enforcer.errors import TableError

MAX_BYTES = 256 << 20
"""The largest of the usual tables has 50 MB of text."""

TIMEOUT = 60.0
"""Seconds without a byte after which a server counts as gone."""

MEND = "try again, or fetch it yourself and use --file"


class _OnlyHttps(HTTPRedirectHandler):
    """Follows redirections, but never to a place where anybody on the path could change what comes."""

    def redirect_request(  # noqa: PLR0917 - urllib's own signature
        self, req: Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> Request | None:
        if urlsplit(newurl).scheme != "https":
            raise TableError(f"{req.full_url} leads to {newurl}, which is not https; name another URL")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def download(url: str) -> bytes:
    """The whole body at `url`. Raises TableError where it is not https, cut short, too long, or not there."""
    if urlsplit(url).scheme != "https":
        raise TableError(f"{url} is not https; name another URL")
    opener: OpenerDirector = build_opener(HTTPSHandler(context=ssl.create_default_context()), _OnlyHttps())
    request = Request(url, headers={"User-Agent": "enforcer", "Accept-Encoding": "identity"})  # noqa: S310 - https
    try:
        with opener.open(request, timeout=TIMEOUT) as answer:
            promised = answer.headers.get("Content-Length")
            chunked = answer.headers.get("Transfer-Encoding", "").lower() == "chunked"
            body: bytes = answer.read(MAX_BYTES + 1)
    except HTTPError as error:
        raise TableError(f"{url}: the server answers {error.code} {error.reason}; {MEND}") from error
    except (URLError, HTTPException, OSError, ValueError) as error:
        reason = error.reason if isinstance(error, URLError) else error
        raise TableError(f"{url}: {' '.join(str(reason).split()) or type(reason).__name__}; {MEND}") from error
    if len(body) > MAX_BYTES:
        raise TableError(f"{url}: more than {MAX_BYTES >> 20} MB; name another URL")
    if promised is None and not chunked:
        raise TableError(f"{url}: the server does not say how long it is; {MEND}")
    if promised is not None and promised != str(len(body)):
        raise TableError(f"{url}: {len(body)} of {promised} bytes came; {MEND}")
    return body
