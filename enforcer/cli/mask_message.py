"""What `enforcer mask test` makes of a message of HTTP: the head by its fields and its query, the body by its type."""

from __future__ import annotations

import re
from collections import Counter
from functools import partial
from typing import Final

from enforcer.errors import ProtocolError, UsageError
from enforcer.masking.errors import MaskError
from enforcer.masking.trial import Trial
from enforcer.protocols.forms import answered_field, named_pairs, rewrite_target
from enforcer.protocols.http1.asking import UNSURE, rewrite_head
from enforcer.protocols.http1.request import RequestHead, read_terms
from enforcer.protocols.media import describe

MEDIA: Final = "message/http"

_END: Final = re.compile(rb"\r?\n\r?\n|\r?\n?\Z")
_ASKED: Final = re.compile(rb"([A-Z]+) ([!-~]+) HTTP/1\.[01]")
_FIELD: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(.*)")
_LENGTH: Final = b"content-length"

Pairs = list[tuple[bytes, bytes]]


def is_answer(message: bytes) -> bool:
    return message.startswith(b"HTTP/")


def masked_message(trial: Trial, message: bytes, counts: Counter[str]) -> bytes:
    """A request or an answer, masked. Raises UsageError where it is none, MaskError where it would be refused."""
    end = _END.search(message)
    head, body = (message, b"") if end is None else (message[: end.start()], message[end.end() :])
    first, *lines = re.split(rb"\r?\n", head)
    parts = [_FIELD.fullmatch(line) for line in lines]
    fields = [(part[1], part[2].rstrip(b" \t")) for part in parts if part is not None]
    asked = _ASKED.fullmatch(first)
    if len(fields) < len(lines) or (asked is None and not is_answer(message)):
        wrong = next((number for number, part in enumerate(parts, 2) if part is None), 1)
        raise UsageError(f"line {wrong} is none of an HTTP message; give a head, an empty line and a body")
    if asked is None:
        fields = [(name, answered_field(name, value, partial(_answered, trial, counts))) for name, value in fields]
    else:
        first, fields = _request(trial, (asked[1], asked[2]), fields, counts)
    body = _body(trial, fields, body, counts, sniff=asked is not None)
    fields = [(name, b"%d" % len(body) if name.lower() == _LENGTH else value) for name, value in fields]
    return b"\r\n".join([first, *(b"%b: %b" % field for field in fields), b"", body])


def _answered(trial: Trial, counts: Counter[str], name: str, value: bytes) -> bytes:
    return trial.field(name, value, counts)


def _request(trial: Trial, asked: tuple[bytes, bytes], fields: Pairs, counts: Counter[str]) -> tuple[bytes, Pairs]:
    """The first line and the fields of a request."""
    method, target = (word.decode("ascii") for word in asked)
    try:
        terms = read_terms("1.1", fields)
    except ProtocolError as error:
        raise UsageError(f"this is no request that would go on ({error.reason}); correct it") from error

    def replaced(kind: str, name: str, value: bytes) -> bytes | None:
        return trial.replaced(kind, name, value, counts)

    def rewrite(value: bytes) -> bytes:
        return trial.mask(value, counts)

    rewritten = rewrite_head(RequestHead(method, "*", terms), rewrite, replaced)
    trial.at("path")
    if target.startswith("/"):
        target = rewrite_target(target, rewrite, named_pairs(replaced))
    return f"{method} {target} HTTP/1.1".encode("ascii"), list(rewritten.terms.fields)


def _body(trial: Trial, fields: Pairs, body: bytes, counts: Counter[str], *, sniff: bool) -> bytes:
    def values(known: bytes) -> tuple[bytes, ...]:
        return tuple(value for name, value in fields if name.lower() == known)

    said = describe(values(b"content-type"), values(b"content-encoding"))
    if said.unmaskable or said.codings:
        raise MaskError(f"the body: {said.unmaskable or 'it is compressed; give it as it is once unpacked'}")
    media = said.media
    if sniff and media in UNSURE and body.lstrip()[:1] in (b"{", b"["):
        media = "application/json"
    trial.at("")
    return trial.text(media).feed(body, True, counts)
