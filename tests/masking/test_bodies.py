"""Forms, multipart bodies, server-sent events and lines: masked as they stream, at every cut as from the whole."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from urllib.parse import parse_qsl, quote, urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enforcer.masking.errors import MaskError
from enforcer.masking.events import EVENT_LIMIT
from enforcer.masking.masker import Masker, masker_for
from enforcer.masking.multipart import HEAD_LIMIT
from enforcer.masking.text import MAX_DOCUMENT
from enforcer.verdict import JsonPath, MaskSpec

CARD, HIDDEN = "4111 1111 1111 1111", "**** **** **** 1111"
DETECT = masker_for(MaskSpec(detectors=("credit_card", "email")))
PATHS = masker_for(MaskSpec(detectors=("credit_card",), json_paths=(JsonPath("$..ssn"),)))
FORM = "application/x-www-form-urlencoded"
PARTS = "multipart/form-data; boundary=AbC"
EVENTS = "text/event-stream"
LINES = "application/x-ndjson"


def fed(masker: Masker, media: str, pieces: list[bytes]) -> list[bytes]:
    """What came out after each piece."""
    mask, counts = masker.text(media), Counter[str]()
    return [mask.feed(piece, index == len(pieces) - 1, counts) for index, piece in enumerate(pieces)]


def masked(masker: Masker, media: str, text: bytes) -> bytes:
    return b"".join(fed(masker, media, [text]))


def outcome(masker: Masker, media: str, pieces: list[bytes]) -> bytes | None:
    """What came out in total, None where the text was refused."""
    try:
        return b"".join(fed(masker, media, pieces))
    except MaskError:
        return None


def cut(text: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(text) + 1) for place in places), len(text)]
    return [text[a:b] for a, b in pairwise(edges)]


WORDS = {
    FORM: [b"a=", b"&", b"=", b"+", b"%34", b"111+1111+1111+1111", b"%", b"x%40example.org", b"4111-1111-1111-1111"],
    PARTS: [
        *(b"--AbC", b"\r\n", b"--", b"\n", b"\r\n--AbC\r\n", b"\r\n--AbC--\r\n", b"\r\n\r\n", b"--Ab", b"C"),
        *(b"Content-Type: application/json", b'{"ssn":"078","c":"\\u0034111111111111111"}', CARD.encode(), b"\0"),
        b'Content-Disposition: form-data; name="x"',
    ],
    EVENTS: [
        *(
            b"data:",
            b"data: ",
            b"\n",
            b"\r",
            b"\r\n",
            b"\n\n",
            b": ping",
            b"id: 4111111111111111",
            b"retry: 10",
            b"data",
        ),
        *(b'{"ssn": 1, "c":', b'"4111 1111 1111 1111"}', b"[DONE]", b"4111 1111 ", b"\xef\xbb\xbf", b"event: x"),
    ],
    LINES: [b"\n", b'{"ssn":"1","card":"4111111111111111"}', b"{", b"[1]", b" ", b"4111111111111111", b"\r"],
}


@pytest.mark.parametrize("masker", [DETECT, PATHS], ids=["detectors", "paths"])
@pytest.mark.parametrize("media", WORDS)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_any_cuts_mask_the_same(media: str, masker: Masker, data: st.DataObject) -> None:
    """However a body is cut, the same comes out of it, or it is refused, as from the whole."""
    text = b"".join(data.draw(st.lists(st.sampled_from(WORDS[media]), max_size=14)))
    if media == PARTS:
        text = b"--AbC\r\n\r\n" + text + b"\r\n--AbC--\r\n"
    places = data.draw(st.lists(st.integers(0, 1 << 16), max_size=8))
    assert outcome(masker, media, cut(text, places)) == outcome(masker, media, [text])


# --- forms


def test_form_values_are_read_as_the_server_reads_them() -> None:
    """Percent-encoded digits and blanks written `+` are seen; what holds nothing stays as it was spelt."""
    form = b"a=%7e&card=4111+1111+1111+1111&c2=%34111%31111111%311111&to=ada%40example.org&empty=&flag"
    out = masked(DETECT, FORM, form)
    assert out.startswith(b"a=%7e&card=****+****+****+1111&")
    assert out.endswith(b"&empty=&flag")
    assert dict(parse_qsl(out.decode()))["c2"] == "************1111"
    assert dict(parse_qsl(out.decode()))["to"] == "***@example.org"


@given(st.lists(st.tuples(st.binary(max_size=8), st.binary(max_size=20)), max_size=5))
@settings(max_examples=40, deadline=None)
def test_forms_without_values_pass_unchanged(fields: list[tuple[bytes, bytes]]) -> None:
    """A form that holds nothing to mask goes on byte for byte."""
    text = urlencode(fields).encode()
    found: Counter[str] = Counter()
    for value in (value for field in fields for value in field):
        DETECT.mask(value, found)
    if b"40" not in text and not found:  # an address may come of it
        assert masked(DETECT, FORM, text) == text


def test_json_in_a_form_field() -> None:
    """A field that holds JSON is masked as JSON, paths included."""
    out = masked(PATHS, FORM, b"payload=" + quote('{"ssn": "078-05-1120", "n": "\\u0034111111111111111"}').encode())
    assert dict(parse_qsl(out.decode())) == {"payload": '{"ssn":"***********","n":"************1111"}'}


def test_form_field_over_the_limit() -> None:
    """A field that does not end is refused, not kept."""
    mask, counts = DETECT.text(FORM), Counter[str]()
    for _ in range(MAX_DOCUMENT >> 20):
        assert mask.feed(b"x" * (1 << 20), False, counts) == b""
    with pytest.raises(MaskError, match="8 MiB"):
        mask.feed(b"x", False, counts)


# --- multipart


def part(body: bytes, *head: bytes) -> bytes:
    return b"--AbC\r\n" + b"".join(line + b"\r\n" for line in head) + b"\r\n" + body + b"\r\n"


def test_each_part_by_its_own_type() -> None:
    """Text, JSON and files are masked as what they are, and their delimiters and heads stay."""
    name = b'Content-Disposition: form-data; name="x"'
    file = b'Content-Disposition: form-data; name="f"; filename="a.bin"'
    body = (
        part(CARD.encode(), name)
        + part(b'{"ssn": 7, "c": "\\u0034111 1111 1111 1111"}', name, b"Content-Type: application/json; charset=utf-8")
        + part(b"\0\1" + CARD.encode() + b"\xff", file, b"Content-Type: application/octet-stream")
        + part(b"", name)
        + b"--AbC--\r\n"
    )
    assert masked(PATHS, PARTS, body) == (
        part(HIDDEN.encode(), name)
        + part(b'{"ssn":null,"c":"**** **** **** 1111"}', name, b"Content-Type: application/json; charset=utf-8")
        + part(b"\0\1" + HIDDEN.encode() + b"\xff", file, b"Content-Type: application/octet-stream")
        + part(b"", name)
        + b"--AbC--\r\n"
    )


def test_names_of_parts_are_masked_and_lengths_dropped() -> None:
    """A file's name may hold a value; a length in a part's head would no longer be true."""
    body = part(
        b"x", b'Content-Disposition: form-data; name="a"; filename="' + CARD.encode() + b'"', b"Content-Length: 1"
    )
    assert masked(DETECT, PARTS, body + b"--AbC--") == (
        part(b"x", b'Content-Disposition: form-data; name="a"; filename="' + HIDDEN.encode() + b'"') + b"--AbC--"
    )


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"preamble\r\n" + part(b"x") + b"--AbC--", "begin"),
        (part(b"x") + b"--AbC--\r\nepilogue", "after the last part"),
        (part(b"x"), "ends before"),
        (part(b"x")[:-2], "ends before"),
        (part(b"x\n--AbC\r\n\r\ny") + b"--AbC--", "bare line feed"),
        (part(b"x\r\n--AbCd\r\n\r\ny") + b"--AbC--", "begins like"),
        (b"--AbC\r\n\r\n--AbC--", "begins like"),
        (part(b"x", b"Content-Transfer-Encoding: base64") + b"--AbC--", "encoded for mail"),
        (part(b"x", b"Content-Encoding: gzip") + b"--AbC--", "compressed"),
        (part(b"x", b"Content-Type: text/plain; charset=utf-7") + b"--AbC--", "character set"),
        (part(b"x", b"Content-Type: multipart/mixed; boundary=b") + b"--AbC--", "inside another"),
        (part(b"x", b"Folded: a", b" b") + b"--AbC--", "line in its head"),
        (part(b"4\x001\x001\x001\x00") + b"--AbC--", "UTF-16"),
        (b"--AbC\r\nX: " + b"x" * HEAD_LIMIT, "head of more"),
        (part(b"x", b"Content-Disposition: form-data; filename*=UTF-8''%34111111111111111") + b"--AbC--", "percent"),
    ],
)
def test_what_two_readers_could_divide_otherwise(body: bytes, words: str) -> None:
    """Text around parts, doubtful delimiters, and parts encoded once more are refused, whole and byte by byte."""
    for pieces in ([body], [body[at : at + 1] for at in range(len(body))]):
        with pytest.raises(MaskError, match=words):
            fed(DETECT, PARTS, pieces)


# --- server-sent events


def test_events_leave_as_they_come() -> None:
    """Each event is handed on with its blank line, whatever ends the lines, and nothing of the next one is awaited."""
    for end in (b"\n", b"\r", b"\r\n"):
        events = [b"data: " + CARD.encode() + end + end, b"id: 7" + end + b"data: b" + end + end]
        out = fed(DETECT, EVENTS, [*events, b""])
        assert out == [b"data: " + HIDDEN.encode() + end + end, events[1], b""]


def test_a_line_feed_that_comes_later() -> None:
    """An event that ends in CR has left before its LF comes; that goes on as it is."""
    assert fed(DETECT, EVENTS, [b"data: a\r\n\r", b"\ndata: b\r\n\r\n", b""]) == [
        b"data: a\r\n\r",
        b"\ndata: b\r\n\r\n",
        b"",
    ]


def test_data_of_many_lines_is_one_text() -> None:
    """JSON spread over `data` lines is masked as the document the client joins; other lines stay."""
    event = b': hello\nevent: m\ndata: {"ssn": "07",\ndata:  "note": "\\u0034111 1111 1111 1111"}\nretry: 5\n\n'
    assert masked(PATHS, EVENTS, event) == (
        b': hello\nevent: m\ndata: {"ssn":"**","note":"**** **** **** 1111"}\nretry: 5\n\n'
    )


@pytest.mark.parametrize(
    "line", [b"data: [DONE]", b"data", b"data:x", b": ping", b"id: 5", b"whatever: x", b"nonsense"]
)
def test_events_that_hold_nothing_pass_unchanged(line: bytes) -> None:
    """What OpenAI ends its streams with, comments, ids and unknown fields pass as they are, also with JSON paths."""
    assert masked(PATHS, EVENTS, line + b"\n\n") == line + b"\n\n"


@pytest.mark.parametrize("line", [b": %b", b"id: %b", b"event: %b", b"%b"])
def test_values_in_other_lines(line: bytes) -> None:
    """A value is masked in whatever line it is."""
    assert masked(DETECT, EVENTS, line % CARD.encode() + b"\n\n") == line % HIDDEN.encode() + b"\n\n"


def test_byte_order_mark_and_an_event_without_its_end() -> None:
    """A mark at the stream's beginning belongs to no line, and what the end cuts off is masked as well."""
    text = b"\xef\xbb\xbfdata: " + CARD.encode()
    assert masked(DETECT, EVENTS, text) == b"\xef\xbb\xbfdata: " + HIDDEN.encode()


def test_event_that_is_no_json_although_it_begins_so() -> None:
    """Where fields are named, an object that cannot be read is refused."""
    with pytest.raises(MaskError, match="JSON"):
        masked(PATHS, EVENTS, b'data: {"ssn": "07"\n\n')


def test_event_over_the_limit() -> None:
    """An event that does not end is refused, not kept."""
    mask, counts = DETECT.text(EVENTS), Counter[str]()
    for _ in range(EVENT_LIMIT >> 16):
        assert mask.feed(b"data: x\n" * (1 << 13), False, counts) == b""
    with pytest.raises(MaskError, match="1 MiB"):
        mask.feed(b"data", False, counts)


# --- lines


def test_lines_leave_as_they_come() -> None:
    """A document per line leaves with its line feed, by detectors and by paths."""
    line = b'{"ssn":"07","c":"4111111111111111"}\n'
    assert fed(DETECT, LINES, [line, b""]) == [b'{"ssn":"07","c":"************1111"}\n', b""]
    assert fed(PATHS, LINES, [line[:9], line[9:], b""]) == [b"", b'{"ssn":"**","c":"************1111"}\n', b""]
