"""Ways around a rule on columns of MongoDB: what errors and names of fields tell of a hidden value."""

from __future__ import annotations

from collections import Counter
from typing import Any

import bson
import pytest

from enforcer.masking.masker import masker_for
from enforcer.protocols.base import Rows, Text
from enforcer.protocols.mongodb import PROTOCOL
from enforcer.verdict import Column, MaskSpec
from tests.conversation import Conversation
from tests.protocols.wire_mongodb import op_msg, read


def told(asked: dict[str, Any], said: dict[str, Any]) -> dict[str, Any]:
    """What a client gets of an answer under a rule on the column `c.ssn`."""
    masker = masker_for(MaskSpec(columns=(Column("c.ssn"),)))

    def rows(row: Rows) -> list[bytes | None]:
        return masker.rows(row.columns, row.values, row.binary, Counter()) or row.values

    def text(said: Text) -> bytes:
        return masker.text(said.media).feed(said.data, True, Counter())

    with Conversation(PROTOCOL.inspector(), mask_rows=rows, mask_text=text) as talk:
        talk.client_sends(op_msg({**asked, "$db": "d"}, 7))
        talk.server_sends(op_msg(said, 1, 7))
        got = read(talk.take_client())[1]
        talk.take_upstream()
        talk.requests.clear()
        talk.outcomes.clear()
    return got


COMPUTES = {"aggregate": "c", "pipeline": [{"$project": {"x": {"$toInt": "$ssn"}}}]}


@pytest.mark.parametrize(
    ("asked", "said", "shown"),
    [
        (COMPUTES, {"ok": 0.0, "code": 241, "errmsg": "Failed to parse number 'v' in $convert"}, "*" * 16),
        (COMPUTES, {"ok": 0.0, "code": 2, "errmsg": "can't read v"}, "*" * 12),
        (COMPUTES, {"ok": 0.0, "code": 40324, "errmsg": "Unrecognized stage"}, "Unrecognized stage"),
        ({"find": "c"}, {"ok": 0.0, "code": 2, "errmsg": "unknown operator"}, "unknown operator"),
        ({"find": "c"}, {"ok": 0.0, "errmsg": "v is no code"}, "*" * 12),
        (
            {"insert": "c"},
            {"ok": 0.0, "code": 11000, "errmsg": "E11000 dup key: { ssn: 7 }"},
            "E11000 *** ***: { ***: * }",
        ),
    ],
)
def test_errors_tell_nothing_of_a_hidden_field(asked: dict[str, Any], said: dict[str, Any], shown: str) -> None:
    """Those that may quote what a pipeline computed are hidden wholly, a key that is there already in its braces."""
    assert told(asked, said) == {**said, "errmsg": shown}


@pytest.mark.parametrize("operator", ["$arrayToObject", "$setField", "$function"])
def test_names_made_of_values_are_hidden(operator: str) -> None:
    """Where a pipeline may make names of fields out of values, a rule on columns hides all but _id; elsewhere none."""
    for made in (operator, "$toUpper"):
        asked = {"aggregate": "c", "pipeline": [{"$project": {"x": {made: [["$ssn", 1]]}}}]}
        document = {"_id": 1, "x": {"v": 1}}
        got = told(asked, {"cursor": {"firstBatch": [document], "id": bson.Int64(0), "ns": "d.c"}, "ok": 1.0})
        names = list(got["cursor"]["firstBatch"][0])
        assert names == (["_id", "x"] if made == "$toUpper" else ["_id", "*1"])
        assert "'v'" not in repr(got)


def test_what_a_validator_considered_is_hidden() -> None:
    """The details of a document that failed to validate quote it, under paths of their own."""
    details = {"failingDocumentId": 1, "details": {"consideredValue": "v"}}
    error = {"index": 0, "code": 121, "errmsg": "Document failed validation", "errInfo": details}
    got = told({"update": "c"}, {"n": 0, "writeErrors": [error], "ok": 1.0})
    assert "'v'" not in repr(got)
