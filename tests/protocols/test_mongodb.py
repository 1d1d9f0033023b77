"""MongoDB, message by message: framing, sections, refusals, streams of answers, names of values, limits."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import bson
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from enforcer.flow import Side
from enforcer.protocols.base import Probe, Rows, Text
from enforcer.protocols.mongodb import PROTOCOL
from enforcer.protocols.mongodb.wire import MAX_MESSAGE
from enforcer.protocols.statement_facts import JOINED
from tests.conversation import DENIAL, Conversation
from tests.protocols.wire_mongodb import (
    CHECKSUM,
    EXHAUST_ALLOWED,
    MORE_TO_COME,
    OP_COMPRESSED,
    OP_MSG,
    message,
    op_msg,
    op_query,
    read,
)

FIND = op_msg({"find": "c", "filter": {}, "$db": "d"}, 7)
WORDS = (
    "egress to 8.8.8.8:80 denied: rule eu-only/everything-else forbids region US (region US (8.8.8.0/24), rule "
    "eu-only/everything-else, session 0a1b); ask this host's operator; 'enforcer explain 8.8.8.8:80' shows every rule "
    "tried"
)
REFUSAL = {"ok": 0.0, "errmsg": WORDS, "code": 13, "codeName": "Unauthorized"}


def batch(*documents: Any, response: int = 7, cursor: int = 0, **more: Any) -> bytes:
    return op_msg(
        {"cursor": {"firstBatch": list(documents), "id": bson.Int64(cursor), "ns": "d.c"}, "ok": 1.0, **more},
        99,
        response,
    )


def same(rows: Rows) -> list[bytes | None]:
    return rows.values


def hide(rows: Rows) -> list[bytes | None]:
    """What holds an x is hidden: text becomes text, the rest null."""
    return [
        value if not value or b"x" not in value else None if binary else value.replace(b"x", b"-")
        for value, binary in zip(rows.values, rows.binary, strict=True)
    ]


@pytest.mark.parametrize(
    ("data", "answer"),
    [
        (FIND, Probe.YES),
        (op_query({"isMaster": 1}, 1), Probe.YES),
        (FIND[:15], Probe.MORE),
        (FIND[:1], Probe.MORE),
        (b"GET /", Probe.NO),
        (b"*1\r\n$4\r\n", Probe.NO),
        (b"\x16\3\1\0\5\1", Probe.NO),
        (b"\0\0\0\x08\x04\xd2\x16\x2f", Probe.NO),
        (op_msg({"ok": 1}, 1, 2), Probe.NO),
        (message(2010, bytes(20), 1), Probe.NO),
    ],
)
def test_first_bytes(data: bytes, answer: Probe) -> None:
    """A message of a known kind that answers nothing is MongoDB; other protocols' first bytes are not."""
    assert PROTOCOL.probe(data) is answer


def test_a_refusal_answers_its_command() -> None:
    """Code 13 with the requestID of the command; the next one goes upstream."""
    with Conversation(PROTOCOL.inspector(), lambda one: DENIAL if "secret" in one.text else None) as talk:
        talk.client_sends(op_msg({"find": "secret", "$db": "d"}, 41) + FIND)
        talk.expect_request("find", '{"find": "secret", "$db": "d"}')
        talk.expect_request("find", '{"find": "c", "filter": {}, "$db": "d"}')
        assert read(talk.take_client()) == (41, REFUSAL)
        talk.expect_upstream(FIND)
        talk.server_sends(batch({"a": 1}))
        talk.expect_client(batch({"a": 1}))
        talk.expect_outcome("ok", 1)


def test_what_wants_no_answer_gets_none() -> None:
    """An unacknowledged write that is refused goes nowhere, and nothing answers it; one that is allowed has its end."""
    write = op_msg({"insert": "c", "$db": "d"}, 8, flags=MORE_TO_COME, sections={"documents": [{"a": 1}]})
    for decide, upstream in ((lambda _one: DENIAL, b""), (lambda _one: None, write)):
        with Conversation(PROTOCOL.inspector(), decide) as talk:
            talk.client_sends(write)
            talk.expect_request("insert", '{"insert": "c", "$db": "d", "documents": [{"a": 1}]}', table="d.c")
            talk.expect_upstream(upstream)
            if upstream:
                talk.expect_outcome("unacknowledged")


def test_an_old_hello_is_understood_and_other_old_queries_are_not() -> None:
    """OP_QUERY opens connections; a find by it is a fault, refused in an OP_REPLY that drivers of its time read."""
    with Conversation(PROTOCOL.inspector(), lambda one: DENIAL if one.fault else None) as talk:
        talk.client_sends(op_query({"isMaster": 1, "compression": ["zlib"]}, 1))
        talk.expect_request("isMaster")
        talk.expect_upstream(op_query({"isMaster": 1, "compression": []}, 1))
        talk.client_sends(op_query({"a": 1}, 2, "d.c"))
        assert "legacy" in talk.expect_request("a").fault
        raw = talk.take_client()
        assert struct.unpack_from("<iiiiiqii", raw) == (len(raw), 1, 2, 1, 0, 0, 0, 1)
        assert bson.decode(raw[36:]) == REFUSAL


@pytest.mark.parametrize("compress", [(0, bytes), (2, zlib.compress), (3, zstandard.compress)])
def test_what_comes_compressed_all_the_same_goes_on_uncompressed(compress: tuple[int, Any]) -> None:
    """Either side's: it is read as what it holds."""
    number, pack = compress

    def packed(raw: bytes) -> bytes:
        body = raw[16:]
        request, response = struct.unpack_from("<ii", raw, 4)
        return message(OP_COMPRESSED, struct.pack("<iiB", OP_MSG, len(body), number) + pack(body), request, response)

    with Conversation(PROTOCOL.inspector(), mask_rows=hide) as talk:
        talk.client_sends(packed(FIND))
        talk.expect_request("find", '{"find": "c", "filter": {}, "$db": "d"}')
        talk.expect_upstream(FIND)
        talk.server_sends(packed(batch({"a": "x"})))
        talk.expect_client(batch({"a": "-"}))
        talk.expect_outcome("ok", 1)


def test_streams_of_answers_belong_to_their_command() -> None:
    """Of an exhaust cursor each answer responds to the one before; the command ends with the last."""
    with Conversation(PROTOCOL.inspector(), mask_rows=hide) as talk:
        talk.client_sends(op_msg({"getMore": bson.Int64(5), "collection": "c", "$db": "d"}, 3, flags=EXHAUST_ALLOWED))
        talk.expect_request("getMore", table="d.c")
        talk.take_upstream()
        for request, response, flags, outcome in ((90, 3, MORE_TO_COME, 0), (91, 90, MORE_TO_COME, 0), (92, 91, 0, 3)):
            said, told = ({"cursor": {"nextBatch": [{"a": word}], "id": 0}, "ok": 1} for word in ("x", "-"))
            talk.server_sends(op_msg(said, request, response, flags=flags))
            talk.expect_client(op_msg(told, request, response, flags=flags))
            if outcome:
                talk.expect_outcome("ok", outcome)


def test_a_cursor_goes_on_as_it_began() -> None:
    """Documents of a getMore are named, and judged, after the collections of the aggregation that opened the cursor."""
    seen: list[str] = []

    def note(rows: Rows) -> list[bytes | None]:
        seen.extend(rows.columns[:1])
        return rows.values

    join = [{"$lookup": {"from": "other", "localField": "a", "foreignField": "b", "as": "j"}}]
    with Conversation(PROTOCOL.inspector(), mask_rows=note) as talk:
        talk.client_sends(op_msg({"aggregate": "c", "pipeline": join, "cursor": {}, "$db": "d"}, 7))
        talk.expect_request("aggregate", table="d.c, d.other")
        talk.server_sends(batch({"s": 1}, cursor=5))
        talk.client_sends(op_msg({"getMore": bson.Int64(5), "collection": "c", "$db": "d"}, 8))
        talk.expect_request("getMore", table="d.c, d.other")
        talk.server_sends(op_msg({"cursor": {"nextBatch": [{"s": 1}], "id": bson.Int64(0)}, "ok": 1}, 9, 8))
        talk.take_client()
        talk.take_upstream()
        talk.outcomes.clear()
    assert seen == [JOINED.join(("d.c.s", "d.other.s"))] * 2


NAMED: list[tuple[dict[str, Any], dict[str, Any], dict[str, set[str]]]] = [
    ({"find": "c"}, {"a": {"b": [{"e": "v"}]}}, {"v": {"d.c.a.b.e"}}),
    ({"find": "c", "projection": {"z": "$ssn"}}, {"z": "v"}, {"v": {"d.c.z", "d.c.ssn", "d.c.ssn.z"}}),
    ({"aggregate": "c", "pipeline": [{"$match": {"a": "$b"}}]}, {"a": "v"}, {"v": {"d.c.a"}}),
    (
        {"aggregate": "c", "pipeline": [{"$group": {"_id": "$ssn"}}]},
        {"_id": "v"},
        {"v": {"d.c._id", "d.c.ssn", "d.c.ssn._id"}},
    ),
    ({"aggregate": "c", "pipeline": [{"$replaceRoot": {"newRoot": "$a"}}]}, {"z": "v"}, {"v": {""}}),
    ({"aggregate": "c", "pipeline": [{"$project": {"z": "$$ROOT"}}]}, {"z": {"s": "v"}}, {"v": {""}}),
    ({"aggregate": "c", "pipeline": [{"$unionWith": {"coll": "e"}}]}, {"s": "v"}, {"v": {"d.c.s", "d.e.s"}}),
    ({"aggregate": "c", "pipeline": [{"$facet": {"f": []}}]}, {"f": [{"s": "v"}]}, {"v": {"d.c.f.s", "d.c.s"}}),
    (
        {"aggregate": "c", "pipeline": [{"$changeStream": {}}]},
        {"fullDocument": {"s": "v"}},
        {"v": {"d.c.fullDocument.s", "d.c.s"}},
    ),
    ({"mapReduce": "c"}, {"s": "v"}, {"v": {""}}),
    ({"find": "c", "projection": {"k": {"$meta": "sortKey"}}, "sort": {"ssn": 1}}, {"k": ["v"]}, {"v": {""}}),
    ({"find": "c", "projection": {"k": {"$meta": "indexKey"}}}, {"k": {"ssn": "v"}}, {"v": {""}}),
    ({"find": "c", "projection": {"k": {"$meta": "textScore"}}}, {"k": "v"}, {"v": {"d.c.k"}}),
    ({"aggregate": "c", "pipeline": [{"$searchMeta": {"facet": {"path": "ssn"}}}]}, {"f": [{"_id": "v"}]}, {"v": {""}}),
    (
        {"findAndModify": "c", "update": [{"$set": {"z": "$ssn"}}]},
        {"z": "v"},
        {"v": {"d.c.z", "d.c.ssn", "d.c.ssn.z"}},
    ),
]


@pytest.mark.parametrize(("asked", "said", "names"), NAMED)
def test_values_are_called_by_all_they_may_be(
    asked: dict[str, Any], said: dict[str, Any], names: dict[str, set[str]]
) -> None:
    """A value's name is its collection and path, with those that the pipeline may have taken it from, or none."""
    found: dict[str, set[str]] = {}

    def note(rows: Rows) -> list[bytes | None]:
        named = zip(rows.columns, rows.values, strict=True)
        found.update({value.decode(): set(column.split(JOINED)) for column, value in named if value == b"v"})
        return rows.values

    with Conversation(PROTOCOL.inspector(), mask_rows=note) as talk:
        talk.client_sends(op_msg({**asked, "$db": "d"}, 7))
        talk.server_sends(batch(said))
        talk.expect_client(batch(said))
        talk.take_upstream()
        talk.requests.clear()
        talk.outcomes.clear()
    assert found == names


def test_what_is_hidden_keeps_its_type_or_is_null() -> None:
    """Strings and code stay so, bytes and patterns become null, names of fields are hidden too; what is beside them
    stays byte for byte."""
    said = {
        "a": ["x", bson.Code("x"), b"x", bson.Regex("x"), 1, 1.5],
        "x": {"x": 1},
        "kept": bson.Decimal128("1E+3"),
        "d": bson.Timestamp(1, 2),
    }
    told = {"a": ["-", bson.Code("-"), None, None, 1, 1.5], "-": {"-": 1}, "kept": said["kept"], "d": said["d"]}
    with Conversation(PROTOCOL.inspector(), mask_rows=hide) as talk:
        talk.client_sends(FIND)
        talk.server_sends(batch(said))
        talk.expect_client(batch(told))
        talk.take_upstream()
        talk.requests.clear()
        talk.outcomes.clear()


def test_errors_are_masked() -> None:
    """Messages of errors are texts, keys that they quote are documents; codes stay."""

    def dashes(text: Text) -> bytes:
        assert text.media == "error"
        return text.data.replace(b"x", b"-")

    error = {"index": 0, "code": 11000, "errmsg": "dup x", "keyValue": {"a": "x"}}
    with Conversation(PROTOCOL.inspector(), mask_rows=hide, mask_text=dashes) as talk:
        talk.client_sends(op_msg({"insert": "c", "$db": "d"}, 1, sections={"documents": [{"a": 1}]}))
        talk.server_sends(op_msg({"n": 0, "writeErrors": [error], "ok": 1.0}, 2, 1))
        masked = {**error, "errmsg": "dup -", "keyValue": {"a": "-"}}
        talk.expect_client(op_msg({"n": 0, "writeErrors": [masked], "ok": 1.0}, 2, 1))
        talk.expect_outcome("writeErrors", 0, failed=True)
        talk.client_sends(FIND)
        talk.server_sends(op_msg({"ok": 0.0, "errmsg": "x", "code": 2, "codeName": "BadValue"}, 3, 7))
        talk.expect_client(op_msg({"ok": 0.0, "errmsg": "-", "code": 2, "codeName": "BadValue"}, 3, 7))
        talk.expect_outcome("BadValue", failed=True)
        talk.take_upstream()
        talk.requests.clear()


@pytest.mark.parametrize("masked", [False, True])
def test_checksums_stay_with_what_they_are_of(masked: bool) -> None:
    """An unchanged message keeps its checksum, a changed one has none; the checksum is read as no section."""
    sum_ = b"\1\2\3\4"
    with Conversation(PROTOCOL.inspector(), mask_rows=hide if masked else None) as talk:
        checked = op_msg({"find": "c", "$db": "d"}, 7, flags=CHECKSUM, checksum=sum_)
        talk.client_sends(checked)
        talk.expect_upstream(checked)
        document = {"cursor": {"firstBatch": [{"a": "x"}], "id": 0}, "ok": 1}
        talk.server_sends(op_msg(document, 1, 7, flags=CHECKSUM, checksum=sum_))
        plain = op_msg({"cursor": {"firstBatch": [{"a": "-"}], "id": 0}, "ok": 1}, 1, 7)
        talk.expect_client(plain if masked else op_msg(document, 1, 7, flags=CHECKSUM, checksum=sum_))
        talk.requests.clear()
        talk.outcomes.clear()


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        ({"saslStart": 1, "mechanism": "SCRAM-SHA-256", "payload": b"n,,n=a,r=x"}, '"payload": "(hidden)"'),
        ({"saslContinue": 1, "payload": b"p"}, '"payload": "(hidden)"'),
        ({"hello": 1, "speculativeAuthenticate": {"payload": b"n,,n=a"}}, '{"payload": "(hidden)"}'),
        ({"createUser": "a", "pwd": "p"}, '"pwd": "(hidden)"'),
        (
            {"find": "c", "lsid": {"id": b"1"}, "filter": {"d": bson.ObjectId(b"1" * 12)}},
            '{"find": "c", "filter": {"d": {"$oid"',
        ),
        (
            {"insert": "c", "documents": [{"a": b"\1", "n": None, "t": True}]},
            '"base64": "AQ==", "subType": "00"}}, "n": null',
        ),
    ],
)
def test_what_is_recorded(asked: dict[str, Any], text: str) -> None:
    """Extended JSON, without credentials and the bookkeeping of sessions."""
    with Conversation(PROTOCOL.inspector()) as talk:
        talk.client_sends(op_msg({**asked, "$db": "d"}, 1))
        said = talk.requests.pop().text
        assert text in said
        assert "n=a" not in said
        assert "lsid" not in said
        talk.take_upstream()


@pytest.mark.parametrize(
    ("asked", "facts"),
    [
        ({"find": "c"}, "read d.c"),
        ({"find": bson.Binary(b"1" * 16, 4)}, "read *"),
        ({"aggregate": 1, "pipeline": [{"$currentOp": {}}]}, "admin *"),
        ({"aggregate": "c", "pipeline": [{"$planCacheStats": {}}]}, "admin d.c"),
        ({"aggregate": "c", "pipeline": [{"$facet": {"a": [{"$lookup": {"from": "e", "as": "x"}}]}}]}, "read d.c, d.e"),
        ({"aggregate": "c", "pipeline": [{"$lookup": {"from": {"db": "o", "coll": "e"}}}]}, "read d.c, o.e"),
        ({"aggregate": "c", "pipeline": [{"$graphLookup": {"from": "e"}}]}, "read d.c, d.e"),
        ({"aggregate": "c", "pipeline": [{"$out": {"db": "o", "coll": "e"}}]}, "write d.c, o.e"),
        ({"aggregate": "c", "pipeline": [{"$project": {"a": {"$function": {"body": "x"}}}}]}, "unknown d.c"),
        ({"explain": {"delete": "c", "deletes": []}}, "read d.c"),
        ({"explain": {"aggregate": "c", "pipeline": [{"$match": {"$where": "x"}}]}}, "unknown d.c"),
        ({"create": "v", "viewOn": "c", "pipeline": [{"$unionWith": "e"}]}, "ddl d.v, d.c, d.e"),
        ({"renameCollection": "d.c", "to": "o.c"}, "ddl d.c, o.c"),
        ({"bulkWrite": 1, "ops": [{"insert": 0}], "nsInfo": [{"ns": "o.c"}]}, "write o.c"),
        ({"update": "c", "updates": [{"q": {}, "u": [{"$set": {"a": {"$function": {}}}}]}]}, "unknown d.c"),
        ({"shutdown": 1}, "admin -"),
        ({"nosuch": "c"}, "unknown d.c"),
        ({"ping": 1}, "- -"),
    ],
)
def test_facts(asked: dict[str, Any], facts: str) -> None:
    """Operation and collections of a command, wherever in it they are named; a star where they are not."""
    with Conversation(PROTOCOL.inspector()) as talk:
        talk.client_sends(op_msg({**asked, "$db": "d"}, 1))
        said = talk.requests.pop().facts
        assert f"{said.get('operation', '-')} {said.get('table', '-')}" == facts
        talk.take_upstream()


def test_users_are_those_who_logged_in() -> None:
    """The name in SCRAM's first message is that request's, and that of later ones once the server says it is done."""
    with Conversation(PROTOCOL.inspector()) as talk:
        talk.client_sends(op_msg({"saslStart": 1, "payload": b"n,,n=a=2Cb,r=nonce", "$db": "admin"}, 1))
        assert talk.expect_request("saslStart").facts == {"user": "a,b"}
        talk.server_sends(op_msg({"done": False, "ok": 1}, 11, 1))
        talk.client_sends(op_msg({"find": "c", "$db": "d"}, 2))
        talk.expect_request("find", user=None)  # type: ignore[arg-type]
        talk.client_sends(op_msg({"saslContinue": 1, "payload": b"p", "$db": "admin"}, 3))
        talk.expect_request("saslContinue")
        talk.server_sends(op_msg({"done": True, "ok": 1}, 12, 3))
        talk.client_sends(op_msg({"find": "c", "$db": "d"}, 4))
        talk.expect_request("find", user="a,b")
        talk.take_client()
        talk.take_upstream()
        talk.outcomes.clear()


def cut(raw: bytes, at: int, value: bytes) -> bytes:
    return raw[:at] + value + raw[at + len(value) :]


TWICE = bson.encode({"find": "c", "$db": "d"})
FAULTS = {
    "message of 1000000000 bytes is over": struct.pack("<i", 10**9) + FIND[4:],
    "length is impossible": struct.pack("<i", 3) + FIND[4:],
    "opCode 2001": message(2001, bytes(30), 1),
    "flag that is not known": cut(FIND, 16, b"\4"),
    "unknown kind": cut(FIND, 20, b"\7"),
    "names no database": op_msg({"find": "c"}, 1),
    "without a name": op_msg({}, 1),
    "has a field twice": op_msg({"insert": "c", "documents": [], "$db": "d"}, 1, sections={"documents": [{}]}),
    "two bodies": message(OP_MSG, bytes(4) + (b"\0" + TWICE) * 2, 1),
    "no body": message(OP_MSG, bytes(4), 1),
    "document's length": cut(FIND, 21, struct.pack("<i", 2000)),
    "by snappy": message(OP_COMPRESSED, struct.pack("<iiB", OP_MSG, 10, 1) + b"x", 1),
    "over the limit, or in another": message(OP_COMPRESSED, struct.pack("<iiB", OP_MSG, MAX_MESSAGE, 2) + b"x", 1),
    "does not have the size": message(
        OP_COMPRESSED, struct.pack("<iiB", OP_MSG, 50, 2) + zlib.compress(bytes(10**6)), 1
    ),
}


@pytest.mark.parametrize("words", FAULTS)
def test_what_clients_must_not_send(words: str) -> None:
    """It ends the flow in MongoDB's words, however it is cut, and nothing of it goes upstream."""
    sent = FAULTS[words]
    for step in (7, len(sent)):
        with Conversation(PROTOCOL.inspector()) as talk:
            for at in range(0, len(sent), step):
                talk.client_sends(sent[at : at + step])
            talk.expect_error(Side.CLIENT, words)
            assert read(talk.take_client())[1]["code"] == 13


def test_what_servers_must_not_send() -> None:
    """An answer to nothing, one of a gigabyte, or a broken document to be masked: the client is told, and nothing of it
    handed on."""
    whole = batch({"a": "x"})
    broken = cut(whole, whole.index(b"\2a\0") + 3, b"\xff\xff")
    for said, words in (
        (batch(response=8), "to no command"),
        (struct.pack("<i", 10**9) + bytes(12), "over the limit"),
        (broken, "string's length"),
    ):
        with Conversation(PROTOCOL.inspector(), mask_rows=same) as talk:
            talk.client_sends(FIND)
            talk.take_upstream()
            talk.server_sends(said)
            talk.expect_error(Side.SERVER, words)
            assert read(talk.take_client()) == (7, REFUSAL)
            talk.requests.clear()
            talk.outcomes.clear()


scalars = st.one_of(
    st.text(max_size=20),
    st.integers(-(1 << 63), (1 << 63) - 1),
    st.floats(allow_nan=False),
    st.booleans(),
    st.none(),
    st.binary(max_size=20),
)
documents = st.recursive(
    st.dictionaries(st.text("abcx.$", min_size=1, max_size=4), scalars, max_size=4),
    lambda inner: st.dictionaries(
        st.text("abcx", min_size=1, max_size=4), st.one_of(scalars, inner, st.lists(inner)), max_size=4
    ),
    max_leaves=12,
)


@settings(max_examples=30, deadline=None)
@given(said=st.lists(documents, max_size=4), data=st.data())
def test_no_cut_changes_anything(said: list[dict[str, Any]], data: st.DataObject) -> None:
    """Whatever the documents, however their message is cut: unmasked it arrives byte for byte; masked it says what
    pymongo makes of the same change."""

    def hidden(value: Any) -> Any:
        match value:
            case dict():
                return {name.replace("x", "-"): hidden(inner) for name, inner in value.items()}
            case list():
                return [hidden(inner) for inner in value]
            case str():
                return value.replace("x", "-")
            case bytes():
                return None if b"x" in value else value
        return value

    raw = batch(*said)
    for how in (None, same, hide):
        with Conversation(PROTOCOL.inspector(), mask_rows=how) as talk:
            talk.client_sends(FIND)
            at = 0
            while at < len(raw):
                size = data.draw(st.integers(1, 200))
                talk.server_sends(raw[at : at + size])
                at += size
            got = talk.take_client()
            if how is hide:
                assert read(got)[1]["cursor"]["firstBatch"] == bson.decode(bson.encode({"a": hidden(said)}))["a"]
            else:
                assert got == raw
            talk.expect_outcome("ok", len(said))
            talk.take_upstream()
            talk.requests.clear()
