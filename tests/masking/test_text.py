"""Texts that arrive in pieces."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enforcer.masking.detectors import DETECTORS, NAMES
from enforcer.masking.escapes import Unescaper, string_state, unescape
from enforcer.masking.masker import Masker, MaskError, masker_for
from enforcer.masking.scanner import PIECE
from enforcer.masking.text import MAX_DOCUMENT
from enforcer.verdict import Column, JsonPath, MaskSpec

DETECT = masker_for(MaskSpec(detectors=tuple(NAMES)))
PATHS = masker_for(MaskSpec(("credit_card", "email"), json_paths=(JsonPath("$..ssn"), JsonPath("$.items[*].card"))))


def feed(masker: Masker, media: str, pieces: list[bytes]) -> tuple[bytes, Counter[str]]:
    counts: Counter[str] = Counter()
    mask = masker.text(media)
    out = [mask.feed(piece, False, counts) for piece in pieces[:-1]] + [mask.feed(pieces[-1], True, counts)]
    return b"".join(out), counts


VALUES = st.sampled_from([example for d in DETECTORS for example in d.examples + d.counter_examples])
FRAGMENTS = st.one_of(
    VALUES,
    st.sampled_from(
        [
            b" ",
            b"-",
            b".",
            b"@",
            b"4",
            b"1111 ",
            b"\\n",
            b"\\",
            b'"',
            b'\\"',
            b"\\u0034",
            b"\\u00e9",
            b"\\ud83d\\ude00",
            b"\\ud83d",
            b"\\u00",
            b"\\u0000",
            b"4111",
            b"x@",
            b".org",
            b"{",
            b":",
            b",",
            b"\xc3",
            b"\x00",
            b"DE89 ",
            b"-12-",
        ]
    ),
    st.binary(max_size=4),
    st.integers(1, 500).map(lambda n: b"a" * n),
    st.integers(1, 500).map(lambda n: b" " * n),
)
TEXTS = st.lists(FRAGMENTS, max_size=30).map(b"".join)


def cut(text: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(text) + 1) for place in places), len(text)]
    return [text[a:b] for a, b in pairwise(edges)]


@given(TEXTS, st.lists(st.integers(0, 1 << 20), max_size=20), st.sampled_from(["text/plain", "application/json"]))
@settings(deadline=None, max_examples=200)
def test_any_cuts_mask_the_same(text: bytes, places: list[int], media: str) -> None:
    """However a text is cut, the same bytes come out and the same values are counted as from the whole."""
    assert feed(DETECT, media, cut(text, places)) == feed(DETECT, media, [text])


@given(TEXTS)
@settings(deadline=None, max_examples=20)
def test_byte_by_byte_masks_the_same(text: bytes) -> None:
    """One byte at a time is no way around the mask either."""
    for media in ("text/plain", "application/json"):
        assert feed(DETECT, media, [text[i : i + 1] for i in range(len(text))] or [b""]) == feed(DETECT, media, [text])


@given(TEXTS)
@settings(deadline=None)
def test_masking_keeps_the_length(text: bytes) -> None:
    """Text that is not JSON keeps its length and every byte outside of a value; an escaped character stays escaped."""
    hidden, counts = feed(DETECT, "text/plain", [text])
    assert len(hidden) == len(text)
    stars = hidden.replace(rb"\u002a", b"*" * 6)
    assert all(new in (old, ord("*")) for new, old in zip(stars, text, strict=True))
    assert (hidden == text) == (not counts)


@pytest.mark.parametrize("offset", [-40, -17, -16, -8, -1, 0, 1])
def test_value_across_the_scanned_pieces(offset: int) -> None:
    """A value that lies across the border of two scanned pieces is hidden, in one feed and in mask()."""
    text = b"." * (PIECE + offset) + b" 4111111111111111 " + b"." * PIECE
    expected = text.replace(b"411111111111", b"************")
    assert feed(DETECT, "text/plain", [text]) == (expected, {"credit_card": 1})
    counts: Counter[str] = Counter()
    assert DETECT.mask(text, counts) == expected
    assert counts == {"credit_card": 1}


def test_held_back_bytes_are_few() -> None:
    """The window holds back less than 512 bytes, whatever comes: a client waits for no more than that."""
    for unit in (b"a", b"4", b"@", b"4111 ", b"\\", b"-", b"\\u0041", b"DE89 "):
        mask, counts = DETECT.text("application/json"), Counter[str]()
        fed = unit * 4000
        assert len(unescape(fed)) - len(mask.feed(fed, False, counts)) < 512


def test_mask_is_ready_for_the_next_text() -> None:
    """After its final piece a mask begins anew, with nothing of the text before."""
    mask, counts = DETECT.text("application/json"), Counter[str]()
    assert mask.feed(b'"4111', True, counts) == b'"4111'
    assert mask.feed(b"111111111111", True, counts) == b"111111111111"
    assert mask.feed(b'["', False, counts) + mask.feed(b"a", True, counts) == b'["a'
    assert mask.feed(b"[4111111111111111]", True, counts) == b"[null            ]"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (rb'{"card":"\u0034111111111111111"}', rb'{"card":"************1111"}'),
        (rb'{"mail":"john\u0040example.org"}', rb'{"mail":"****@example.org"}'),
        (rb'{"ssn":"078\u002d05-1120"}', rb'{"ssn":"***-**-****"}'),
        (rb'{"t":"\u20094111111111111111"}', '{"t":"\u2009************1111"}'.encode()),
        (rb'{"t":"\u00014111111111111111"}', rb'{"t":"\u0001************1111"}'),
        (rb'{"t":"\\u0034111111111111111"}', rb'{"t":"\\u002a***********1111"}'),
        (rb'{"t":"\u003c\u0022\u005c\/"}', rb'{"t":"\u003c\u0022\u005c\/"}'),
        (rb'{"t":"\ud83d\ude00 \ud83d"}', b'{"t":"\xf0\x9f\x98\x80 \\ud83d"}'),
    ],
)
def test_json_escapes_hide_nothing(text: bytes, expected: bytes) -> None:
    """A character spelt as an escape (RFC 8259, section 7) is the character; what stays escaped stays valid."""
    assert feed(DETECT, "application/json; charset=utf-8", [text])[0] == expected


@given(
    st.recursive(
        st.text() | st.integers(-(2**53), 2**53) | st.none(), lambda v: st.lists(v) | st.dictionaries(st.text(), v)
    )
)
@settings(deadline=None, max_examples=60)
def test_unescaped_json_is_the_same_json(value: object) -> None:
    """Writing escapes out never changes what a JSON text means, nor does the order of its pieces."""
    import json

    text = json.dumps(value, ensure_ascii=True).encode()
    assert json.loads(unescape(text)) == value
    unescaper = Unescaper()
    pieces = [unescaper.feed(text[i : i + 3], False) for i in range(0, len(text), 3)]
    assert b"".join(pieces) + unescaper.feed(b"", True) == unescape(text)


@given(TEXTS, st.integers(0, 1 << 20), st.integers(0, 3))
def test_string_state_can_be_taken_anywhere(text: bytes, place: int, state: int) -> None:
    """The state after two parts is the state after the whole."""
    place %= len(text) + 1
    assert string_state(string_state(state, text[:place]), text[place:]) == string_state(state, text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b'{"pan": 4111111111111111, "n": 1}', {"pan": None, "n": 1}),
        (b"[-4111111111111111,5555555555554444]", [0, None]),
        (b'{"a\\"":"x 4111111111111111","4111111111111111":1}', {'a"': "x ************1111", "************1111": 1}),
        (b'["\\\\",4111111111111111]', ["\\", None]),
        (b"[0.4111111111111111, 4111111111111111.5]", [0.4111111111111111, 4111111111111111.5]),
    ],
)
def test_json_numbers_become_null(text: bytes, expected: object) -> None:
    """A card number that is a JSON number becomes null, and the document still parses, however it was cut."""
    for pieces in ([text], [text[i : i + 1] for i in range(len(text))]):
        assert orjson.loads(feed(DETECT, "application/json", pieces)[0]) == expected


def test_json_paths() -> None:
    """Named members are hidden whole, wherever the path leads; detectors look at the rest."""
    text = b'{"ssn": 78051120, "u": {"ssn": "x"}, "items": [{"card": "abc"}, {"card": 5}], "m": "a@example.org"}'
    hidden, counts = feed(PATHS, "application/vnd.api+json", [text[:30], text[30:]])
    assert orjson.loads(hidden) == {
        "ssn": None,
        "u": {"ssn": "*"},
        "items": [{"card": "***"}, {"card": None}],
        "m": "*@example.org",
    }
    assert counts == {"$..ssn": 2, "$.items[*].card": 2, "email": 1}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b'{"ssn": "078051120", "ssn": "x"}', b'{"ssn":"*"}'),
        (b'{"other": "078051120", "other": "x"}', b'{"other":"x"}'),
        (rb'{"s\u0073n": "abc"}', b'{"ssn":"***"}'),
        (b'{"ssn": {"a": [1, "secret"]}}', b'{"ssn":null}'),
        (b'{"ssn": "' + b"x" * 40 + b'"}', b'{"ssn":"****************"}'),
        (b"", b""),
        (b" \r\n", b" \r\n"),
    ],
)
def test_json_paths_see_what_the_client_sees(text: bytes, expected: bytes) -> None:
    """Second members of a name, escaped names and nested values are no way around a path."""
    assert feed(PATHS, "application/json", [text])[0] == expected


@pytest.mark.parametrize(
    "text",
    [
        b"{",
        b'{"ssn": "x"} {"ssn": "y"}',
        b"\xef\xbb\xbf{}",
        b'{"ssn": NaN}',
        b"[" * 2000 + b"]" * 2000,
        b'"\xff"',
        b"<html>",
    ],
)
def test_unreadable_json_is_refused(text: bytes) -> None:
    """JSON that cannot be read cannot be masked by path, and is not let through."""
    with pytest.raises(MaskError, match="should be JSON"):
        feed(PATHS, "application/json", [text])


def test_deep_json_is_refused_or_masked() -> None:
    """Nesting deeper than can be written again ends as a refusal, not as a crash of the walk."""
    with pytest.raises(MaskError):
        feed(PATHS, "application/json", [b"[" * 900 + b'{"ssn":"x"}' + b"]" * 900])


def test_document_too_long_is_refused() -> None:
    """A document beyond the limit is refused as soon as that is known."""
    mask, counts = PATHS.text("application/json"), Counter[str]()
    assert mask.feed(b" " * MAX_DOCUMENT, False, counts) == b""
    with pytest.raises(MaskError, match="8 MiB"):
        mask.feed(b" ", False, counts)


def test_lines_of_json() -> None:
    """Newline-delimited JSON is a document per line."""
    hidden, _ = feed(PATHS, "application/x-ndjson", [b'{"ssn":"ab"}\n{"x', b'":1}\n\n'])
    assert hidden == b'{"ssn":"**"}\n{"x":1}\n\n'


def test_other_media_are_not_held_back_for_paths() -> None:
    """JSON paths say nothing about a text that is not JSON: only the detectors do."""
    assert feed(PATHS, "text/html", [b"<p>ssn a@example.org"])[0] == b"<p>ssn *@example.org"


def test_nothing_to_do_is_nothing_done() -> None:
    """A specification without a say about texts hands pieces on as they are."""
    mask = Masker(MaskSpec(columns=(Column("*.ssn"),))).text("text/plain")
    piece = b"4111111111111111"
    assert mask.feed(piece, False, Counter()) is piece


def test_copy_with_column_rules_is_refused() -> None:
    """COPY output has no column names, so a column rule cannot hold for it."""
    mask = Masker(MaskSpec(("email",), (Column("*.ssn"),))).text("copy")
    with pytest.raises(MaskError, match="or SELECT"):
        mask.feed(b"1\t078-05-1120\n", False, Counter())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"Key (ssn)=(078-05-1120) already exists.", b"Key (***)=(***-**-****) already exists."),
        (b"Failing row contains (1, Ann (B), 07", b"Failing row contains (*, *** (*), **"),
        (b'invalid input syntax for type integer: "12x"', b'invalid input syntax for type integer: "***"'),
        (b'relation "users" does not exist', b'relation "users" does not exist'),
        (b"a (x)\x00b c", b"a (*)\x00b c"),
    ],
)
def test_errors_quote_no_masked_columns(text: bytes, expected: bytes) -> None:
    """PostgreSQL's error details print rows; where a column is masked they show no values."""
    masker = Masker(MaskSpec(columns=(Column("*.ssn"),)))
    assert feed(masker, "error", [text[:9], text[9:]])[0] == expected
