"""Step 4 of 6, inspect: in words, why something is taken for a value, and what stays readable of it.

For people who try out a mask. Says how a candidate was confirmed, never what it was.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from enforcer.masking import confirm, contacts, rows, secrets
from enforcer.masking.confirm import Span
from enforcer.masking.detectors import Detector
from enforcer.masking.rows import Confirm

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
    rows.letters_and_digits: "mask, letters and digits",
    rows.everything: "redact",
}


def why(detector: Detector, confirmed_by: Confirm | None) -> str:
    """`behind a label, check nl.bsn`: what `confirmed_by`, of a row of `detector`, has looked at; None: the model."""
    if confirmed_by is None:
        return "the language model"
    asked = confirmed_by.func if isinstance(confirmed_by, partial) else confirmed_by
    own = _CONFIRMED[asked]
    return f"{own}, check {detector.validator}" if detector.validator else own


def how(detector: Detector) -> str:
    """What is done to its values."""
    return _KEPT[detector.hide]
