"""Every value is masked and counted once, in whatever kind of text it comes, and however that is cut."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple
from urllib.parse import parse_qsl, urlencode

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enforcer.masking.detectors import DETECTORS
from enforcer.masking.masker import masker_for
from enforcer.masking.scanner import Scanner
from enforcer.verdict import MaskSpec
from tests.masking.test_spellings import ALL, TEXTS

MASKER = masker_for(MaskSpec(detectors=("credit_card", "email", "us_ssn")))
# What is written, what its reader gets, and what is counted for it.
VALUES = {
    "4111 1111 1111 1111": ("**** **** **** 1111", "credit_card"),
    "5555555555554444": ("************4444", "credit_card"),
    "ada@example.org": ("***@example.org", "email"),
    "078-05-1120": ("***-**-****", "us_ssn"),
    "Größe 12, 100 %": ("Größe 12, 100 %", ""),
    "order 4111111111111112": ("order 4111111111111112", ""),
    '&=+\\ "quoted" <b>': ('&=+\\ "quoted" <b>', ""),
}


class Kind(NamedTuple):
    """A kind of text: how several values are written in it, and how its reader reads them."""

    media: str
    write: Callable[[list[str]], bytes]
    read: Callable[[bytes], list[str]]


def parts(values: list[str]) -> bytes:
    heads = "--AbC\r\nContent-Type: text/plain\r\n\r\n"
    return "".join([*(f"{heads}{value}\r\n" for value in values), "--AbC--\r\n"]).encode()


KINDS = (
    Kind("text/plain", lambda values: "\n".join(values).encode(), lambda text: text.decode().split("\n")),
    Kind("application/octet-stream", lambda v: "\0".join(v).encode(), lambda text: text.decode().split("\0")),
    Kind("application/json", orjson.dumps, orjson.loads),
    Kind(
        "application/x-ndjson",
        lambda values: b"".join(orjson.dumps(value) + b"\n" for value in values),
        lambda text: [orjson.loads(line) for line in text.splitlines()],
    ),
    Kind(
        "application/x-www-form-urlencoded",
        lambda values: urlencode([("f", value) for value in values]).encode(),
        lambda text: [value for _, value in parse_qsl(text.decode())],
    ),
    Kind(
        "text/event-stream",
        lambda values: "".join(f"data: {value}\n\n" for value in values).encode(),
        lambda text: [event.removeprefix("data: ") for event in text.decode().split("\n\n")[:-1]],
    ),
    Kind(
        "multipart/form-data; boundary=AbC",
        parts,
        lambda text: re.findall("\r\n\r\n(.*)\r\n", text.decode()),
    ),
)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.media.partition(";")[0])
@given(values=st.lists(st.sampled_from(list(VALUES)), min_size=1, max_size=8), places=st.lists(st.integers(0, 9999)))
@settings(deadline=None, max_examples=40)
def test_each_value_is_masked_and_counted_once(kind: Kind, values: list[str], places: list[int]) -> None:
    """What the reader gets is every value hidden, and nothing else changed; the count is that of the values."""
    text, counts, mask = kind.write(values), Counter[str](), MASKER.text(kind.media)
    edges = [0, *sorted(place % (len(text) + 1) for place in places), len(text)]
    pieces = [text[start:end] for start, end in pairwise(edges)]
    out = b"".join(mask.feed(piece, number == len(pieces) - 1, counts) for number, piece in enumerate(pieces))
    assert kind.read(out) == [VALUES[value][0] for value in values]
    assert counts == Counter(VALUES[value][1] for value in values if VALUES[value][1])


@given(values=st.lists(st.sampled_from(list(VALUES)), min_size=1, max_size=8))
@settings(deadline=None, max_examples=40)
def test_each_cell_is_masked_and_counted_once(values: list[str]) -> None:
    """The same for a row of a database."""
    counts: Counter[str] = Counter()
    cells: list[bytes | None] = [value.encode() for value in values]
    masked = MASKER.rows(tuple("abcdefgh")[: len(cells)], list(cells), (False,) * len(cells), counts)
    assert [(cell or b"").decode() for cell in masked or cells] == [VALUES[value][0] for value in values]
    assert counts == Counter(VALUES[value][1] for value in values if VALUES[value][1])


@given(TEXTS)
@settings(deadline=None, max_examples=60)
def test_nothing_is_counted_twice(text: bytes) -> None:
    """Whatever the text: what is counted are the values that are found, no two of which share a byte."""
    counts: Counter[str] = Counter()
    ALL.hide(text, counts)
    assert counts == Counter(hit.detector.name for hit in ALL.hits(text))


@pytest.mark.full
@pytest.mark.parametrize("detector", DETECTORS, ids=lambda detector: detector.name)
def test_a_detector_alone_finds_what_it_finds_among_all(detector: object) -> None:
    """No pattern finds its values only because another is there, or reports them where it is not asked for."""
    alone = Scanner((detector,))  # type: ignore[arg-type]
    for example in detector.examples:  # type: ignore[attr-defined]
        text = example.replace(b"<<", b"").replace(b">>", b"")
        for spelt in (text, b"x " + text + b" y", b"".join(b"%%%02x" % byte for byte in text)):
            assert alone.hits(spelt), spelt
