"""Step 4 of 6, inspect: in words, why something is taken for a value, and what stays readable of it.

For people who try out a mask. Says how a candidate was confirmed, never what it was.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final, NamedTuple

from enforcer.masking import confirm, contacts, rows, secrets
from enforcer.masking.confirm import Span
from enforcer.masking.detectors import Detector
from enforcer.masking.escapes import string_state
from enforcer.masking.rewriting import _PSEUDONYM, Rewriting, _Group, _groups, _hide_local
from enforcer.masking.rows import Confirm
from enforcer.masking.scanner import BEGINNING, Scanner, _Reading

_CONFIRMED: Final[dict[Callable[..., Span | None], str]] = {
    confirm.any_card: "prefix and length of an issuer, Luhn",
    confirm.iban: "length of its country, modulo 97",
    confirm.email: "local part, @ and domain",
    confirm.ssn: "ranges that are issued",
    confirm.labelled: "behind a label",
    confirm.lettered: "behind a label",
    confirm.shaped: "its shape",
    contacts.phone_international: "country code and its numbering plan",
    contacts.phone_grouped: "groups and numbering plan of its region",
    contacts.phone_labelled: "behind a label, numbering plan of a region",
    contacts.birth: "a date behind a label",
    contacts.ipv4: "four octets, not a version",
    contacts.ipv6: "RFC 4291",
    contacts.mac: "six octets, not a part of more",
    contacts.bitcoin: "base58 with its checksum",
    contacts.bech32: "bech32 with its checksum",
    contacts.ethereum: "0x and 40 digits",
    secrets.pem_key: "the head of a key and its first line",
    secrets.jwt: "a header in base64url that opens a JOSE object",
    secrets.token: "prefix of its issuer",
    secrets.token_of: "prefix and length of its issuer",
    secrets.assigned: "behind a name and a sign of assignment",
    secrets.password: "behind a name and a sign of assignment",
    secrets.url_password: "user and password of a URL",
}
_KEPT: Final[dict[Callable[[bytes], bytes], str]] = {
    rows.all_but_last_four: "mask, all but the last four",
    rows.all_but_at: "mask, all before the @",
    _hide_local: "mask, all before the @",
    rows.letters_and_digits: "mask, letters and digits",
    rows.everything: "redact",
}


class Found(NamedTuple):
    """Something that detectors find: where, which of them (in the order of what they find), what confirmed it, what
    takes its place, and what puts that there."""

    start: int
    end: int
    names: str
    why: str
    put: bytes
    operator: str


def found(scanner: Scanner, data: bytes, json: int | None) -> Iterator[Found]:
    """What `scanner` finds in `data`, left to right. `json`: see `Scanner.hide`."""
    if isinstance(scanner, Rewriting):
        yield from _replaced(scanner, data, json)
        return
    hidden = scanner.hide(data, Counter(), json=json)
    for hit in scanner.hits(data):
        put = hidden[hit.start : hit.end]
        own = hit.detector.hide(data[hit.start : hit.end])
        number = json is not None and hit.plain and put != own
        done = _NUMBER if number else how(hit.detector)
        put = put.strip() if number else put
        yield Found(hit.start, hit.end, hit.detector.name, why(hit.detector, hit.confirm), put, done)


_NUMBER: Final = "null, for it is a number"
TYPED: Final = "null, for a client would read it as no text"


def _replaced(scanner: Rewriting, data: bytes, json: int | None) -> Iterator[Found]:
    """The same where operators replace what is found. Values that overlap are one."""
    at, reading = 0, scanner._read(data, BEGINNING)
    for group in _groups(reading):
        if json is not None:
            json, at = string_state(json, data[at : group.start]), group.start
        found_by = [scanner._detectors[row] for _, _, row in group.keys]
        names = "+".join(dict.fromkeys(one.name for one in found_by))
        because = why(found_by[0], scanner._confirms[group.keys[0][2]])
        put = scanner._replaced(data, reading, group, json)
        yield Found(group.start, group.end, names, because, put.strip(), _done(scanner, data, reading, group, put))


def _done(scanner: Rewriting, data: bytes, reading: _Reading, group: _Group, put: bytes) -> str:
    """What was done to a group, in words."""
    operator, detector = scanner._operator(reading, group)
    said = how(detector)
    if put.strip() == b"null":
        return _NUMBER
    if operator is None:
        asked = scanner._operators.get(detector.name)
        if asked is None:
            return said
        spelt = any(reading.found[key] is not None for key in group.keys)
        return f"{said}; not {asked}: {'it is spelt otherwise' if spelt else 'several values overlap'}"
    if operator.name == "generalise" and put == scanner._hidden(data, reading, group):
        return f"{said}; not {operator}: it is none of that kind"
    return str(operator)


def why(detector: Detector, confirmed_by: Confirm | None) -> str:
    """`behind a label, check nl.bsn`: what `confirmed_by`, of a row of `detector`, has looked at; None: the model."""
    if detector.name == _PSEUDONYM:
        return "it looks like a pseudonym"
    if confirmed_by is None:
        return "the language model"
    asked = confirmed_by.func if isinstance(confirmed_by, partial) else confirmed_by
    own = _CONFIRMED[asked]
    return f"{own}, check {detector.validator}" if detector.validator else own


def how(detector: Detector) -> str:
    """What is done to its values."""
    return _KEPT[detector.hide]
