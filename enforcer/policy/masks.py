"""Step 3 of 6, decide: what an item of `mask:` says: a detector or a field, and what is put in its place.

Gets plain data; hands on a `MaskItem`. Raises ValueError, `what is wrong; what mends it`, for what makes no sense.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from difflib import get_close_matches
from typing import NamedTuple

from enforcer.policy.vocabulary import Vocabulary
from enforcer.policy.words import text
from enforcer.verdict import PSEUDONYMISE, Column, Field, JsonPath, Masked, Operator

_FIELDS = ("header", "query", "form", "csv")
_KINDS = ("detector", "column", "json", *_FIELDS)
_OPERATORS = ("redact", "mask", "replace", "hmac", "nullify", "generalise", PSEUDONYMISE)
# Operators that may stand alone.
_PLAIN = ("redact", "mask", "hmac", "nullify", PSEUDONYMISE)
_COLUMN = re.compile(r"[^.\s]+(?:\.[^.\s]+)+")
_HEADER = re.compile(r"[A-Za-z0-9*-]+")
# Whom and what a message is for, how it is framed and coded, and who asks: another one without them.
_KEPT_HEADERS = frozenset(
    (
        *("host", "authorization", "proxy-authorization", "cookie", "connection", "upgrade", "expect", "te", "trailer"),
        *("content-length", "content-type", "content-encoding", "accept-encoding", "transfer-encoding", "range"),
    )
)
# Values of these have a form that others can have; of these, something coarser.
ALIKE = ("credit_card", "email", "phone")
COARSER = {"ip_address": ("network",), "date_of_birth": ("year", "month")}
_GRAINS = ("year", "month", "network")
# More letters and digits than any identifier has.
_MOST_KEPT = 64
_MOST_BOUNDS = 64
_DURATION = re.compile(r"([1-9][0-9]{0,5})([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 24 * 3600}
_LONGEST = 366 * _SECONDS["d"]


class MaskItem(NamedTuple):
    """What is masked, and how; None is what is done by default."""

    masked: Masked
    operator: Operator | None


def parse_item(value: object, vocabulary: Vocabulary) -> MaskItem:
    if isinstance(value, str):
        return MaskItem(_detector(value, vocabulary), None)
    kinds = [key for key in value if key in _KINDS] if isinstance(value, dict) else []
    if not isinstance(value, dict) or len(kinds) != 1:
        raise ValueError(
            'must be a detector of docs/masking.md, or {column: "table.column"}, or {json: "$.path"}, or '
            f"{{{', '.join(_FIELDS)}: name}}; choose one"
        )
    kind = kinds[0]
    unknown = [key for key in value if key not in (kind, "operator")]
    if unknown:
        raise ValueError(f"unknown key {unknown[0]!r}; beside {kind} there may be operator")
    masked = _masked(kind, text(value[kind]), vocabulary)
    if value.get("operator") is None:  # one without a value is a fault by itself
        return MaskItem(masked, None)
    operator = parse_operator(value["operator"])
    if kind == "detector":
        _check_detector(str(masked), operator)
    elif operator.alike:
        raise ValueError(f"pseudonyms alike are for {', '.join(ALIKE)}; write operator: {PSEUDONYMISE} for a field")
    return MaskItem(masked, operator)


def parse_operator(value: object) -> Operator:
    if isinstance(value, str):
        return _plain_operator(value)
    if not isinstance(value, dict) or len(value) != 1:
        raise ValueError(f"operator: must be one of {', '.join(_OPERATORS)}; choose one")
    ((name, argument),) = value.items()
    match name:
        case "mask":
            return _mask(argument)
        case "replace":
            if not isinstance(argument, str):
                raise ValueError('operator: replace needs its text; write {replace: "..."}')
            return Operator("replace", text=text(argument))
        case "generalise":
            return _generalise(argument)
        case "pseudonymise":
            if argument != "alike":
                raise ValueError(
                    f"operator: {PSEUDONYMISE} takes alike and nothing else; write {{{PSEUDONYMISE}: alike}}"
                )
            return Operator(PSEUDONYMISE, alike=True)
        case _:
            known = _plain_operator(name)
            raise ValueError(f"operator: {known.name} takes nothing more; write operator: {known.name}")


def parse_duration(value: object) -> int:
    """`90s`, `30m`, `24h`, `7d` in seconds."""
    match = _DURATION.fullmatch(text(value))
    seconds = int(match[1]) * _SECONDS[match[2]] if match else 0
    if not 0 < seconds <= _LONGEST:
        raise ValueError(f"{value!r} is not a duration; write one up to 366d, such as 30m, 24h or 7d")
    return seconds


def _plain_operator(name: str) -> Operator:
    if name in _PLAIN:
        return Operator(name)
    if name == "replace":
        raise ValueError('operator: replace needs its text; write {replace: "..."}')
    if name == "generalise":
        raise ValueError("operator: generalise needs how far; write {generalise: year}, month, network, or 1000")
    close = get_close_matches(name, [*_OPERATORS], n=1)
    raise ValueError(f"operator: unknown operator {name!r}; use {close[0] if close else ', '.join(_OPERATORS)}")


def _mask(argument: object) -> Operator:
    kept = argument if isinstance(argument, dict) else {}
    if not kept or set(kept) - {"first", "last"}:
        raise ValueError("operator: mask takes first, last, or both; write {mask: {last: 4}}")
    counts = {}
    for end, count in kept.items():
        if not isinstance(count, str) or not count.isascii() or not count.isdigit() or not 0 < int(count) <= _MOST_KEPT:
            raise ValueError(f"operator: {end} must be a number from 1 to {_MOST_KEPT}; write {{mask: {{{end}: 4}}}}")
        counts[end] = int(count)
    return Operator("mask", first=counts.get("first", 0), last=counts.get("last", 0))


def _generalise(argument: object) -> Operator:
    if isinstance(argument, str) and argument in _GRAINS:
        return Operator("generalise", text=argument)
    listed = argument if isinstance(argument, list) else [argument]
    bounds = tuple(_number(one) for one in listed)
    if not bounds or len(bounds) > _MOST_BOUNDS or list(bounds) != sorted(set(bounds)):
        raise ValueError("operator: ranges of generalise begin at rising numbers; write {generalise: [0, 18, 65]}")
    if isinstance(argument, str) and bounds[0] <= 0:
        raise ValueError("operator: a range of generalise is wider than 0; write {generalise: 1000}")
    if len(bounds) == 1 and isinstance(argument, list):
        raise ValueError("operator: one bound makes no ranges; name two or more, or the width of all")
    return Operator("generalise", bounds=bounds)


def _number(written: object) -> float:
    try:
        number = float(written) if isinstance(written, str) else math.nan
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"operator: {written!r} is no grain; write year, month, network, a width, or a list of bounds")
    return number


def _check_detector(name: str, operator: Operator) -> None:
    """Is that an operator for what the detector finds?"""
    if operator.name == "nullify":
        raise ValueError(f"operator: what {name} finds is a part of a text, and no null; use redact")
    if operator.name == "generalise" and operator.text not in COARSER.get(name, ()):
        known = "; ".join(f"{{generalise: {grains[0]}}} is for {one}" for one, grains in COARSER.items())
        raise ValueError(f"operator: {name} cannot be generalised so; {known}")
    if operator.alike and name not in ALIKE:
        raise ValueError(f"operator: pseudonyms alike are for {', '.join(ALIKE)}; write operator: {PSEUDONYMISE}")


def _masked(kind: str, name: str, vocabulary: Vocabulary) -> Masked:
    if kind == "detector":
        return _detector(name, vocabulary)
    if kind == "json":
        vocabulary.check_json_path(name)
        return JsonPath(name)
    if kind == "column":
        if not _COLUMN.fullmatch(name) or "**" in name.removesuffix(".**"):
            raise ValueError(
                f'{name!r} is not a column; write "table.column", with * for any table or any column, or '
                '"collection.path.to.field", with ** at the end for all below'
            )
        return Column(name)
    if kind == "header":
        if not _HEADER.fullmatch(name):
            raise ValueError(f"{name!r} is not the name of a header field; use letters, digits, hyphens and *")
        if name.lower() in _KEPT_HEADERS:
            raise ValueError(f"{name!r} is what a message is for, how it is sent or who asks; it cannot be masked")
    return Field(kind, name.lower())


def _detector(name: str, vocabulary: Vocabulary) -> str:
    if name in vocabulary.withheld:
        raise ValueError(f"{name!r} {vocabulary.withheld[name]}")
    if name not in vocabulary.detectors:
        close = get_close_matches(name, sorted(vocabulary.detectors), cutoff=0.5)
        meant = f"use {' or '.join(close)}" if close else "docs/masking.md lists them"
        raise ValueError(f'unknown detector {name!r}; {meant}, or write {{column: "table.column"}}')
    return name


def named_twice(items: Sequence[MaskItem]) -> bool:
    """Does one of them name what another does?"""
    return len({item.masked for item in items}) < len(items)
