"""Operators on columns through whole sessions of databases: what the client receives."""

from __future__ import annotations

from typing import Any

import bson
import pytest

from enforcer.verdict import Column, MaskSpec, Operator
from tests.protocols import wire_mysql as my
from tests.protocols import wire_postgres as pg
from tests.protocols.wire_mongodb import op_msg
from tests.proxy.stage import CARD, MASKED_CARD, Stage, rule
from tests.proxy.test_masking_failures import logged_in, queried, redis_command

LAST4, TENS = Operator("mask", last=4), Operator("generalise", bounds=(10.0,))
TEXT, INTEGER = 25, 23
VAR_STRING, LONG = 253, 3


def masking(*items: tuple[str, Operator]) -> Any:
    operators = tuple((Column(pattern), operator) for pattern, operator in items)
    return rule(mask=MaskSpec(columns=tuple(column for column, _ in operators), operators=operators))


@pytest.mark.parametrize(("oid", "shown"), [(TEXT, MASKED_CARD.encode()), (INTEGER, None)])
def test_postgres_tells_texts_from_numbers(oid: int, shown: bytes | None) -> None:
    """A card number in a text column keeps its last four; in a number's column asterisks are none, and it is NULL."""
    with Stage(masking(("*.card", LAST4)), port=5432) as stage:
        queried(stage, "SELECT card FROM cards")
        stage.take("client")
        head = pg.columns("card", oid=oid)
        stage.server_sends(head + pg.row(CARD.encode()) + pg.complete("SELECT 1") + pg.ready())
        assert stage.to_client == head + pg.row(shown) + pg.complete("SELECT 1") + pg.ready()


@pytest.mark.parametrize(("kind", "shown"), [(VAR_STRING, MASKED_CARD.encode()), (LONG, None)])
def test_mysql_tells_texts_from_numbers(kind: int, shown: bytes | None) -> None:
    """The same of MySQL's columns."""
    with Stage(masking(("*.card", LAST4)), port=3306) as stage:
        logged_in(stage)
        stage.client_sends(my.query(b"SELECT card FROM customers"))
        stage.take("client")
        head = my.count(1, 1) + my.column(2, b"card", b"card", b"customers", kind=kind) + my.eof(3)
        stage.server_sends(head + my.row(4, CARD.encode()) + my.eof(5))
        assert stage.to_client == head + my.row(4, shown) + my.eof(5)


def test_mongodb_keeps_types() -> None:
    """A string of digits keeps its last four, at any depth and in arrays; a number becomes another of its type, or
    null."""
    with Stage(masking(("c.pay.card", LAST4), ("c.n.*", TENS))) as stage:
        stage.client_sends(op_msg({"find": "c", "$db": "d"}, 1))
        stage.connects()
        found = {
            "pay": [{"card": CARD}, {"card": int(CARD)}],
            "n": {"a": 47, "b": 64.5, "c": bson.Int64(12), "d": True},
        }
        stage.server_sends(op_msg({"cursor": {"firstBatch": [found], "id": 0, "ns": "d.c"}, "ok": 1}, 101, 1))
        (got,) = bson.decode(stage.to_client[21:])["cursor"]["firstBatch"]
        assert got["pay"] == [{"card": MASKED_CARD}, {"card": None}]
        assert got["n"] == {"a": 40, "b": 60.0, "c": 10, "d": None}
        assert [type(one) for one in got["n"].values()] == [int, float, bson.Int64, type(None)]


def test_redis_keeps_strings_strings() -> None:
    """What Redis answers is a string, whatever it looks like."""
    with Stage(masking(("*.card", LAST4)), port=6379) as stage:
        stage.client_sends(redis_command(b"HGET", b"user:1", b"card"))
        stage.connects()
        stage.server_sends(b"$16\r\n" + CARD.encode() + b"\r\n")
        assert stage.to_client == b"$16\r\n" + MASKED_CARD.encode() + b"\r\n"
