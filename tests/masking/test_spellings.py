"""Values that are there, but not letter by letter: escaped, encoded, in two bytes a character, longer than a window."""

from __future__ import annotations

from base64 import b64decode, b64encode, urlsafe_b64encode
from collections import Counter
from itertools import pairwise
from urllib.parse import quote, unquote_to_bytes

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enforcer.masking import engine
from enforcer.masking.detectors import DETECTORS
from enforcer.masking.masker import masker_for
from enforcer.masking.scanner import HOLD, PIECE, Scanner
from enforcer.masking.text import Window
from enforcer.masking.views import View
from enforcer.verdict import MaskSpec
from tests.masking.table import parsed

ALL = Scanner(DETECTORS)
EXAMPLES = [(detector, parsed(example)[0]) for detector in DETECTORS for example in detector.examples]
KEY = b"-----BEGIN PRIVATE KEY-----\n" + b"MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj\n" * 30
KEY += b"-----END PRIVATE KEY-----\n"
JWT = (
    b"eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9."
    + b"eyJzdWIiOiIxMjM0NTY3ODkwIn0" * 80
    + b".dBjftJeZ4CVP-mB92K27uhbUJU1p1r_w"
)


def hide(text: bytes) -> tuple[bytes, Counter[str]]:
    counts: Counter[str] = Counter()
    return ALL.hide(text, counts), counts


def stream(pieces: list[bytes]) -> tuple[bytes, Counter[str]]:
    counts: Counter[str] = Counter()
    window = Window(ALL)
    out = [window.feed(piece, False, counts) for piece in pieces]
    return b"".join([*out, window.feed(b"", True, counts)]), counts


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"mail=john%40example.org", b"mail=****%40example.org"),
        (b"card=4111%201111%201111%201111", b"card=****%20****%20****%201111"),
        (b"card=4111+1111+1111+1111", b"card=****+****+****+1111"),
        (b"%34%31%31%31111111111111", b"%2A%2A%2A%2A********1111"),
        (b"tel%3D%2B4930227-0001.", b"tel%3D%2B*******-****."),
        (b"john&#64;example.org", b"****&#64;example.org"),
        (b"john&#x40;example&period;org", b"****&#x40;example&period;org"),
        (b"&#52;111111111111111", b"*****" + b"***********1111"),
        (rb"john\u0040example.org", rb"****\u0040example.org"),
        (rb"\u0034111111111111111 \x34111111111111111", rb"\u002a***********1111 \x2a***********1111"),
        ("john@example.org".encode("utf-16-le"), "****@example.org".encode("utf-16-le")),
        ("to john@example.org, x".encode("utf-16-be"), "to ****@example.org, x".encode("utf-16-be")),
        ("\u20ac%: john@example.org".encode("utf-16-le"), "\u20ac%: ****@example.org".encode("utf-16-le")),
        ("\ufeffcard 4111 1111 1111 1111.".encode("utf-16"), "\ufeffcard **** **** **** 1111.".encode("utf-16")),
    ],
)
def test_escaped_values(text: bytes, expected: bytes) -> None:
    """Percent-encoding, HTML's references, escapes of JSON and programs, and UTF-16 hide no value; what stands for a
    hidden character is as long, and what stays is spelt as it was."""
    hidden, counts = hide(text)
    assert hidden == expected
    assert sum(counts.values()) >= 1


@pytest.mark.parametrize(("detector", "text"), EXAMPLES, ids=lambda value: getattr(value, "name", ""))
def test_every_value_is_found_in_every_spelling(detector: object, text: bytes) -> None:
    """Each example of the table is found percent-encoded throughout, in UTF-16 if it is ASCII, and in base64; and
    reading the spelling after it was masked shows as much as masking what it spells."""
    plain, counts = hide(b"x " + text + b" y")
    everywhere = b"".join(b"%%%02X" % byte for byte in text)
    spelt, found = hide(b"x " + everywhere + b" y")
    assert found == counts
    assert unquote_to_bytes(spelt) == plain
    if text.isascii():
        wide, found = hide(f"x {text.decode()} y".encode("utf-16-le"))
        assert (wide.decode("utf-16-le").encode(), found) == (plain, counts)
    letters, found = hide(b"x " + b64encode(b"this is what " + text + b" y") + b" y")
    assert found == counts
    assert b64decode(letters[2:-2])[13:] == plain[2:]


@pytest.mark.parametrize("alphabet", [b64encode, urlsafe_b64encode])
@pytest.mark.parametrize("lead", ["{'mail': '", "To whom it may concern: ", "GET /?a=??>>~~&mail="])
def test_base64_stays_base64(alphabet, lead: str) -> None:  # type: ignore[no-untyped-def]
    """What base64 encodes is masked inside: same length, same alphabet, and only the value is not what it was."""
    inside = lead.encode() + b"john@example.org, 4111111111111111, ??>>"
    hidden, counts = hide(b'{"blob": "' + alphabet(inside) + b'"}')
    expected = inside.replace(b"john", b"****").replace(b"411111111111", b"************")
    assert hidden == b'{"blob": "' + alphabet(expected) + b'"}'
    assert counts == {"email": 1, "credit_card": 1}


def test_json_writes_slashes_into_base64() -> None:
    """PHP escapes the slashes of base64 in JSON: the run goes on behind them."""
    inside = b"what ??? is ??? at john@example.org"
    letters = b64encode(inside).replace(b"/", rb"\/")
    assert rb"\/" in letters
    hidden, counts = hide(b'"' + letters + b'"')
    assert counts == {"email": 1}
    assert b64decode(orjson.loads(hidden)) == inside.replace(b"john", b"****")


@pytest.mark.parametrize("step", [37, 500, 3000, PIECE])
@pytest.mark.parametrize(
    "text",
    [
        b"a key:\n" + KEY + b"that was all of it, " + KEY[:-200] + b" to john@example.org",
        b'{"key": "' + KEY.replace(b"\n", rb"\n") + b'", "mail": "john@example.org"}',
        b"Cookie: session=" + JWT + b"; mail=john@example.org",
        b"data: " + b64encode(b"apiVersion: v1\n" + KEY + b"mail: john@example.org\n" * 20) + b" john@example.org",
        quote(KEY).encode() + b" john@example.org",
        KEY.decode().encode("utf-16-le") + "john@example.org".encode("utf-16-le"),
    ],
    ids=["key", "json", "jwt", "base64", "percent", "utf-16"],
)
def test_values_longer_than_a_window(text: bytes, step: int) -> None:
    """A key or token of any length is hidden from where it was recognised to where it ends, however the text is cut;
    what stands behind it is not."""
    hidden, counts = stream([text[i : i + step] for i in range(0, len(text), step)])
    assert (hidden, counts) == hide(text)
    assert len(hidden) == len(text)
    shown = b64decode(hidden.split()[1]) if text.startswith(b"data:") else unquote_to_bytes(hidden.replace(b"\0", b""))
    assert b"MIIE" not in shown
    assert b"eyJzdWIi" not in shown
    assert b"****@example.org" in shown
    assert b"john" not in shown


ENCODINGS = (
    lambda value: value,
    lambda value: quote(value).encode(),
    lambda value: b"".join(b"%%%02x" % byte for byte in value),
    lambda value: b"".join(b"\\u%04x" % byte for byte in value),
    lambda value: b"".join(b"&#%d;" % byte for byte in value),
    lambda value: b"".join(bytes((byte, 0)) for byte in value),
    b64encode,
    lambda value: b64encode(b"this is it, all of it, and it is: " + value),
    lambda value: quote(b64encode(b"the words are these: " + value)).encode(),
)
VALUES = st.sampled_from([text for _, text in EXAMPLES] + [c for d in DETECTORS for c in d.counter_examples])
SPELT = st.builds(lambda value, spell: spell(value), VALUES, st.sampled_from(ENCODINGS))
FRAGMENTS = st.one_of(
    SPELT,
    SPELT,
    st.sampled_from(
        [b" ", b"", b"\n", rb"\n", b"%", b"%4", b"&", b"&#", b"\\", b"\\u00", b"\0", b"{", b", ", b"<", b"="]
    ),
    st.sampled_from([b"BSN: ", b"password=", b"tel ", b"https://u:", b"Authorization: Bearer ", KEY[:300], JWT[:700]]),
    st.binary(max_size=4),
    st.integers(1, 600).map(lambda n: b64encode(b"plain text, as it is written " * 20)[:n]),
    st.integers(1, 600).map(lambda n: b"a" * n),
    st.integers(1, 600).map(lambda n: b"%20" * n),
)
TEXTS = st.lists(FRAGMENTS, max_size=16).map(b"".join)


@given(TEXTS, st.lists(st.integers(0, 1 << 20), max_size=12))
@settings(deadline=None)
def test_any_cuts_mask_the_same(text: bytes, places: list[int]) -> None:
    """However a text is cut, the same bytes come out and the same values are counted as from the whole."""
    edges = [0, *sorted(place % (len(text) + 1) for place in places), len(text)]
    assert stream([text[a:b] for a, b in pairwise(edges)]) == hide(text)


@given(TEXTS)
@settings(deadline=None)
def test_every_byte_is_one_values_or_none(text: bytes) -> None:
    """No two hits share a byte, and what no hit holds stays as it is."""
    hits = ALL.hits(text)
    assert all(a.end <= b.start for a, b in pairwise(hits))
    hidden, _ = hide(text)
    assert len(hidden) == len(text)
    kept = [0, *(edge for hit in hits for edge in (hit.start, hit.end)), len(text)]
    for start, end in zip(kept[::2], kept[1::2], strict=True):
        assert hidden[start:end] == text[start:end]


@given(TEXTS)
@settings(deadline=None)
def test_json_stays_json(text: bytes) -> None:
    """A masked JSON document is one, with the same shape."""
    document = {"a": text.decode("latin-1"), "bsn": 111222333, "phone": 2024561414, "n": [4111111111111111, 0.5]}
    mask = masker_for(MaskSpec(detectors=tuple(detector.name for detector in DETECTORS))).text("application/json")
    hidden = orjson.loads(mask.feed(orjson.dumps(document), True, Counter()))
    assert hidden.keys() == document.keys()
    assert (hidden["bsn"], hidden["phone"], hidden["n"]) == (None, None, [None, 0.5])


@given(TEXTS)
@settings(deadline=None)
def test_views_know_where_everything_came_from(text: bytes) -> None:
    """Writing out and hiding nothing gives the text back, and every place leads back to itself."""
    view = View(text)
    end = len(view.text)
    assert view.hidden(0, end, view.text) == (text[view.raw(0) : view.raw_end(end)] if end else b"")
    for place in range(0, len(view.text), 7):
        raw = view.raw(place)
        assert view.place(raw) <= place
        assert raw < view.raw_end(place + 1) <= len(text)


RE2 = Scanner(DETECTORS, engine.RE2)


def test_the_other_engine_finds_the_same_in_the_table() -> None:
    """google-re2, in place of Hyperscan, finds every example and leaves every counter-example alone."""
    texts = [text for _, text in EXAMPLES] + [text for detector in DETECTORS for text in detector.counter_examples]
    for text in texts:
        assert RE2.hits(text) == ALL.hits(text), text
    whole = b"\n".join(texts)
    assert RE2.hits(whole) == ALL.hits(whole)


@given(TEXTS)
@settings(deadline=None, max_examples=20)
def test_the_other_engine_masks_the_same(text: bytes) -> None:
    """Whatever the text, both engines lead to the same bytes and counts."""
    counts: Counter[str] = Counter()
    assert (RE2.hide(text, counts), counts) == hide(text)


def test_what_is_held_back_is_bounded() -> None:
    """A window keeps less than half a kilobyte of a plain text, and what stands for as many characters of others."""
    for unit, most in ((b"a", 512), (b"4", 512), (b"%41", 1536), (b"&#x0041;", 4096), (b"&#1;", 4096), (b"QUJD", 700)):
        window = Window(ALL)
        fed = unit * 4000
        assert 0 < len(fed) - len(window.feed(fed, False, Counter())) < most, unit
    assert HOLD < 512


def test_the_engine_of_this_host_is_named() -> None:
    """Hyperscan where it is installed."""
    assert engine.name() == engine.HYPERSCAN
