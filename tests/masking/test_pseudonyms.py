"""Pseudonyms: whatever was put in comes back, however the text is cut, spelt or cased."""

from __future__ import annotations

import json
import re
from base64 import b64decode, b64encode
from collections import Counter
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from enforcer.masking import deltas
from enforcer.masking.answers import Answers
from enforcer.masking.confirm import luhn
from enforcer.masking.errors import MaskError
from enforcer.masking.keys import Key, Keys
from enforcer.masking.masker import Masker, pseudonymiser
from enforcer.masking.pseudonyms import SessionVault
from enforcer.masking.rewriting import _fitting, _Group
from enforcer.verdict import Field, JsonPath, MaskSpec, Operator, Pseudonyms

KEYS = Keys((Key(b"k" * 32),))
PSEUDONYMISE, ALIKE = Operator("pseudonymise"), Operator("pseudonymise", alike=True)
NAMES = ("email", "credit_card", "iban")


def spec_of(operator: Operator, *items: Any) -> MaskSpec:
    masked = items or NAMES
    return MaskSpec(
        detectors=tuple(item for item in masked if isinstance(item, str)),
        json_paths=tuple(item for item in masked if isinstance(item, JsonPath)),
        fields=tuple(item for item in masked if isinstance(item, Field)),
        operators=tuple((item, operator) for item in masked),
        pseudonyms=Pseudonyms(),
    )


PLAIN, LIKE = spec_of(PSEUDONYMISE), spec_of(ALIKE, "email", "credit_card", "phone")


def pair(spec: MaskSpec) -> tuple[Masker, Answers]:
    vault = SessionVault()
    return Masker(spec, KEYS, vault), Answers(None, pseudonymiser(spec, vault))


def through(masker: Masker, media: str, text: bytes, cuts: list[int] | None = None) -> bytes:
    mask = masker.text(media)
    edges = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts or [])})
    pieces = [text[begin:end] for begin, end in pairwise(edges)] or [b""]
    counts: Counter[str] = Counter()
    return b"".join([mask.feed(piece, number == len(pieces) - 1, counts) for number, piece in enumerate(pieces)])


WORDS = st.sampled_from(
    [
        *("anna@example.org", "Bob.B@example.com", "4111111111111111", "4111 1111 1111 1111", "DE89370400440532013000"),
        *("EMAIL_1", "email_2", "CREDIT_CARD_3", "URL_EMAIL_1", "VALUE_1", "EMAIL_", "EMA", "credit", "_1", "IBAN_12"),
        *("user1@example.invalid", "user2@example.invalid", "9999000000000012", "999 000 0001", "+44 20 7946 0958"),
        *(" ", ", ", "\n", "x", "E", "99", "é", "=", "/", "<", "(", ")", "+", "_", "-"),
    ]
)
TEXTS = st.lists(WORDS, max_size=12).map("".join)
CUTS = st.lists(st.integers(0, 400), max_size=6)


@settings(max_examples=30)
@given(TEXTS, CUTS, CUTS)
def test_what_was_put_in_comes_back(text: str, up: list[int], down: list[int]) -> None:
    """For every text and cut, taking back what was put in gives the text, and cuts do not change what is sent."""
    raw = text.encode()
    masker, answers = pair(PLAIN)
    try:
        sent = through(masker, "text/plain", raw)
    except MaskError:  # a digit right behind a value
        return
    assert through(answers, "text/plain", sent, down) == raw
    cut_masker, _ = pair(PLAIN)
    assert through(cut_masker, "text/plain", raw, up) == sent


@settings(max_examples=25)
@given(TEXTS, CUTS)
def test_what_was_put_in_alike_comes_back(text: str, down: list[int]) -> None:
    """The same of pseudonyms that have the form of their values."""
    masker, answers = pair(LIKE)
    try:
        sent = through(masker, "text/plain", text.encode())
    except MaskError:
        return
    assert through(answers, "text/plain", sent, down).decode() == text


@settings(max_examples=25)
@given(st.lists(TEXTS | st.text(max_size=8), max_size=4), CUTS)
def test_json_comes_back(texts: list[str], down: list[int]) -> None:
    """Of a JSON document the same values come back, whatever was escaped."""
    document = {"texts": texts, "user": {"name": 'A "B" \\ C'}}
    masker, answers = pair(spec_of(PSEUDONYMISE, "email", "credit_card", JsonPath("$.user.name")))
    try:
        sent = through(masker, "application/json", json.dumps(document).encode())
    except MaskError:
        return
    assert b'A \\"B' not in sent
    assert json.loads(through(answers, "application/json", sent, down)) == document


@example("anna@example.orgURL_EMAIL_14111111111111111", [1], [])  # begins as one, and is longer
@settings(max_examples=30)
@given(TEXTS, st.lists(st.integers(1, 30), min_size=1, max_size=8), CUTS)
def test_events_come_back(text: str, sizes: list[int], cuts: list[int]) -> None:
    """A text streamed as deltas of server-sent events comes back as a whole, in as many events, however it is cut."""
    masker, answers = pair(PLAIN)
    try:
        sent = through(masker, "text/plain", text.encode()).decode()
    except MaskError:
        return
    said = _deltas(sent, sizes)
    stream = "".join(f"data: {json.dumps({'delta': {'text': delta}})}\n\n" for delta in said) + "data: [DONE]\n\n"
    got = through(answers, "text/event-stream", stream.encode(), cuts).decode()
    events = [event.removeprefix("data: ") for event in got.split("\n\n") if event]
    assert events[-1] == "[DONE]"
    assert len(events) == len(said) + 1
    assert "".join(json.loads(event)["delta"]["text"] for event in events[:-1]) == text


def _deltas(sent: str, sizes: list[int]) -> list[str]:
    found: list[str] = []
    while len("".join(found)) < len(sent):
        at = len("".join(found))
        found.append(sent[at : at + sizes[len(found) % len(sizes)]])
    return found


@example("1", [1], "%s")  # digits alone are JSON as well
@settings(max_examples=30)
@given(TEXTS, st.lists(st.integers(1, 30), min_size=1, max_size=8), st.sampled_from(["%s", '{"delta": %s}', "[%s]"]))
def test_messages_come_back(text: str, sizes: list[int], shape: str) -> None:
    """The same of messages, of JSON or of text, each a part of what is said: as many come, and say it."""
    masker, answers = pair(PLAIN)
    try:
        sent = through(masker, "text/plain", text.encode()).decode()
    except MaskError:
        return
    messages, counts = answers.messages(), Counter[str]()
    got: list[bytes] = []
    said = _deltas(sent, sizes)
    for delta in said:
        message = delta if shape == "%s" else shape % json.dumps(delta)
        got += messages.take("text/plain" if shape == "%s" else "application/json", message.encode(), counts)
    got += messages.release()
    read = [one.decode() if shape == "%s" else next(iter(_values(json.loads(one)))) for one in got]
    assert ("".join(read), len(got)) == (text, len(said))
    assert messages.patience == 0


def _values(document: Any) -> Any:
    return document.values() if isinstance(document, dict) else document


def test_what_waits_is_bounded_in_number_and_time() -> None:
    """A message waits for 64 at most, and goes on with its pseudonym taken back; behind a letter less long than at the
    beginning of a word; JSON-RPC not at all."""
    masker, answers = pair(PLAIN)
    for number in range(10):  # so that there is an EMAIL_10
        masker.mask(b"a%d@example.org" % number, Counter())
    messages, counts = answers.messages(), Counter[str]()

    def say(document: dict[str, str]) -> list[bytes]:
        return messages.take("application/json", json.dumps(document).encode(), counts)

    assert say({"jsonrpc": "2.0", "method": "EMA"})
    assert messages.patience == 0
    assert say({"state": "ACTIVE"}) == []
    assert messages.patience == deltas.SHORT_PAUSE
    assert say({"text": "to EMAIL_1"}) == []
    assert messages.patience == deltas.PAUSE
    assert json.loads(messages.release()[1]) == {"text": "to a0@example.org"}
    assert messages.patience == 0
    assert say({"text": "to EMAIL_1"}) == []
    others = [say({"other": str(number)}) for number in range(deltas.HELD_MAX)]
    assert [len(gone) for gone in others] == [0] * (deltas.HELD_MAX - 1) + [deltas.HELD_MAX + 1]
    assert json.loads(others[-1][0]) == {"text": "to a0@example.org"}


def test_lines_of_json_come_back() -> None:
    """The same of JSON in lines."""
    masker, answers = pair(PLAIN)
    assert masker.mask(b"anna@example.org", Counter()) == b"EMAIL_1"
    lines = b'{"response":"to EM"}\n{"response":"AIL_1"}\n{"response":" now"}\n'
    got = through(answers, "application/x-ndjson", lines, [20, 23])
    assert [json.loads(line)["response"] for line in got.splitlines()] == ["to anna@example.org", "", " now"]


def test_documents_of_any_kind_come_back() -> None:
    """In events: strings by themselves, names of members, and numbers that are pseudonyms alike."""
    masker, answers = pair(LIKE)
    assert masker.mask(b"4111111111111111 anna@example.org", Counter()) == b"9999000000000012 user2@example.invalid"
    for event, restored in [
        (b'"to user2@example.invalid"', '"to anna@example.org"'),
        (b'{"user2@example.invalid": 1}', '{"anna@example.org":1}'),
        (b'{"n": 9999000000000012}', '{"n":4111111111111111}'),
        (b"9999000000000012", "4111111111111111"),
    ]:
        got = through(answers, "text/event-stream", b"data: %b\n\n" % event)
        assert got.decode() == f"data: {restored}\n\n"


def test_addresses_of_the_web_have_their_values_again() -> None:
    """A redirect to a page for a mail address leads there, however its @ is spelt; a plus is none of a query's."""
    masker, answers = pair(LIKE)
    masker.mask(b"a+b@example.org", Counter())
    for spelt in (b"@", b"%40"):
        address = answers.field("Location", b"/u?m=user1%bexample.invalid&n=%%40" % spelt, Counter())
        assert address == b"/u?m=a%2Bb@example.org&n=%40"
    assert through(answers, "application/x-www-form-urlencoded", b"m=user1@example.invalid") == b"m=a%2Bb@example.org"


def test_streams_side_by_side_are_told_apart() -> None:
    """Choices that are streamed at once do not mix."""
    masker, answers = pair(PLAIN)
    masker.mask(b"anna@example.org", Counter())
    texts = [(0, "EMA"), (1, "x"), (0, "IL_1"), (1, "IL_1"), (0, "."), (1, ".")]
    stream = b"".join(b'data: {"choices":[{"index":%d,"text":"%b"}]}\n\n' % (n, t.encode()) for n, t in texts)
    got = through(answers, "text/event-stream", stream)
    said: dict[int, str] = {0: "", 1: ""}
    for event in got.decode().split("\n\n")[:-1]:
        choice = json.loads(event.removeprefix("data: "))["choices"][0]
        said[choice["index"]] += choice["text"]
    assert said == {0: "anna@example.org.", 1: "xIL_1."}


def test_a_value_in_json_within_json_is_escaped_twice() -> None:
    """Arguments of tools are JSON in a string of JSON: what comes back in them is still JSON."""
    masker, answers = pair(spec_of(PSEUDONYMISE, JsonPath("$.name")))
    name = 'Anna "A" B\\C\nD'
    sent = through(masker, "application/json", json.dumps({"name": name}).encode())
    token = json.loads(sent)["name"]
    assert token == "NAME_1"
    call = json.dumps({"arguments": json.dumps({"to": token}), "text": f"for {token}"}).encode()
    got = json.loads(through(answers, "application/json", call, [17, 30]))
    assert got["text"] == f"for {name}"
    assert json.loads(got["arguments"]) == {"to": name}


def test_one_message_is_not_held_back_for_the_next() -> None:
    """A document of JSON-RPC goes on at once, though it ends in what may be the beginning of a pseudonym."""
    masker, answers = pair(PLAIN)
    masker.mask(b"anna@example.org", Counter())
    event = b'data: {"jsonrpc":"2.0","result":{"text":"one EMA"}}\n\n'
    assert answers.text("text/event-stream").feed(event, False, Counter()) == event


def test_pseudonyms_alike_have_the_form_of_their_values() -> None:
    """A card number stays one by Luhn, a telephone number keeps its shape, an address is below example.invalid."""
    masker, answers = pair(LIKE)
    text = b"4111 1111 1111 1111, +44 20 7946 0958, anna@example.org"
    sent = masker.mask(text, Counter())
    card, phone, email = sent.split(b", ")
    assert len(card) == 19
    assert luhn(card.replace(b" ", b""))
    assert re.sub(rb"[0-9]", b"#", phone) == b"+## ## #### ####"
    assert email.endswith(b"@example.invalid")
    assert through(answers, "text/plain", sent.replace(b" ", b"").upper()) == text.replace(b", ", b",")


def test_too_many_values_refuse_the_message(monkeypatch: pytest.MonkeyPatch) -> None:
    """A vault that is full refuses, rather than to let a value through."""
    monkeypatch.setattr(SessionVault, "LIMIT", 2)
    masker, _ = pair(PLAIN)
    masker.mask(b"a@example.org b@example.org", Counter())
    with pytest.raises(MaskError, match="no room"):
        masker.mask(b"c@example.org", Counter())
    assert masker.mask(b"a@example.org", Counter()) == b"EMAIL_1"


@pytest.mark.parametrize("behind", [b"1", b"-", b"x"])
def test_what_stands_beside_a_value_is_told_from_its_pseudonym(behind: bytes) -> None:
    """A field's pseudonym has the field to itself; one that letters stand beside is not one alike, and a digit right
    behind one refuses the message."""
    group = _Group(2, 5, [])
    if behind.isdigit():
        with pytest.raises(MaskError, match="a digit stands right behind a value"):
            _fitting(ALIKE, b"a=xyz" + behind, group)
    else:
        assert _fitting(ALIKE, b"a=xyz" + behind, group) == PSEUDONYMISE
        assert _fitting(ALIKE, b"a=xyz ", group) == ALIKE


def test_json_that_does_not_say_so_stays_json() -> None:
    """A body of text/plain that begins as JSON gets its values escaped; other text gets them as they are."""
    masker, answers = pair(spec_of(PSEUDONYMISE, JsonPath("$.name")))
    through(masker, "application/json", json.dumps({"name": 'A "B"'}).encode())
    assert through(answers, "text/plain", b' {"to":"NAME_1"}', [1]) == b' {"to":"A \\"B\\""}'
    assert through(answers, "text/plain", b"to NAME_1") == b'to A "B"'
    assert through(answers, "text/html", b"<p>NAME_1") == b"<p>A &quot;B&quot;"


@pytest.mark.parametrize("media", ["application/octet-stream", "application/grpc", "image/png"])
def test_what_must_keep_its_length_is_hidden_in_place(media: str) -> None:
    """In forms of their own nothing may become longer: values are hidden as by default, for good."""
    masker, answers = pair(PLAIN)
    assert through(masker, media, b"\x0a\x10anna@example.org") == b"\x0a\x10****@example.org"
    assert through(answers, media, b"EMAIL_1") == b"EMAIL_1"


def test_what_is_spelt_otherwise_leaves_for_good() -> None:
    """A value in base64 or UTF-16 is hidden in place and gets no pseudonym; what answers hold in base64, UTF-16 or
    percent-encoding is not looked into: nothing comes back, and nobody else learns anything."""
    masker, answers = pair(PLAIN)
    letter = b"Dear anna@example.org, thank you for all."
    sent = json.loads(through(masker, "application/json", b'{"file":"%b"}' % b64encode(letter)))
    assert b64decode(sent["file"]) == letter.replace(b"anna", b"****")
    wide = "to anna@example.org".encode("utf-16-le")
    assert through(masker, "text/plain", wide) == wide.replace("anna".encode("utf-16-le"), "****".encode("utf-16-le"))
    masker, answers = pair(LIKE)
    assert masker.mask(b"anna@example.org", Counter()) == b"user1@example.invalid"
    for kept in (
        b'{"file":"%b"}' % b64encode(b"Dear user1@example.invalid, thank you."),
        "user1@example.invalid".encode("utf-16-le"),
        b"/u?m=user1%40example.invalid",
    ):
        assert through(answers, "application/json" if kept[:1] == b"{" else "text/plain", kept) == kept
