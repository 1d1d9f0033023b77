"""pymongo through the inspector to a server of MongoDB's protocol: what it reads is what the server said, but for what
is hidden or refused."""

from __future__ import annotations

import datetime
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import bson
import pymongo
import pytest
from pymongo import errors

from enforcer.policy.only import Only
from enforcer.protocols.base import Request, Rows
from enforcer.protocols.mongodb import PROTOCOL
from enforcer.tls.authority import Authority
from enforcer.verdict import Column, Denial, MaskSpec
from tests.conversation import DENIAL
from tests.databases.gateway import Gateway, allow, rule
from tests.databases.inspected import Relay, relay
from tests.databases.mongo_server import ready, running_mongo
from tests.proxy.stage import CARD, MASKED_CARD

SECRET, STARS = "secret", "******"
WHEN = datetime.datetime(2026, 5, 17, 12, 30, tzinfo=datetime.UTC)
KINDS: dict[str, Any] = {
    "text": "Grüße",
    "int": 7,
    "long": bson.Int64(1 << 40),
    "double": 2.5,
    "decimal": bson.Decimal128("12.50"),
    "yes": True,
    "none": None,
    "when": WHEN,
    "bytes": b"\0\1\2",
    "pattern": bson.Regex("^a.*", "i"),
    "code": bson.Code("function () {}"),
    "stamp": bson.Timestamp(1, 2),
    "least": bson.MinKey(),
    "list": [1, "two", {"three": [3.5]}],
    "inner": {"a": {"b": {"c": "deep"}}},
    "empty": {},
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with running_mongo(tmp_path_factory.mktemp("mongo")) as port:
        yield ready(port)


def client(port: int, **options: Any) -> Any:
    return pymongo.MongoClient(
        "127.0.0.1", port, directConnection=True, tz_aware=True, serverSelectionTimeoutMS=20_000, **options
    )


def forbidden(request: Request) -> Denial | None:
    return DENIAL if "forbidden" in request.text or request.fault else None


def starred(rows: Rows) -> list[bytes | None]:
    return [
        (None if binary else value.replace(SECRET.encode(), STARS.encode()))
        if value and SECRET.encode() in value
        else value
        for value, binary in zip(rows.values, rows.binary, strict=True)
    ]


def battery(database: Any) -> list[Any]:
    """Commands of every kind, and what they say."""
    users, said = database.users, list[Any]()
    users.drop()
    said.append(users.insert_many([{"_id": n, "n": n % 7, **KINDS} for n in range(70)]).inserted_ids)
    said.append(list(users.find({}, batch_size=20).sort("_id")))
    said.append(users.update_many({"n": 3}, {"$set": {"marked": True}}).raw_result)
    said.append(users.count_documents({"marked": True}))
    said.append(sorted(users.distinct("n")))
    said.append(users.find_one_and_update({"_id": 3}, {"$inc": {"n": 100}}, projection={"n": 1}))
    said.append(list(users.aggregate([{"$group": {"_id": "$n", "sum": {"$sum": "$int"}}}, {"$sort": {"_id": 1}}])))
    said.append(users.create_index("n"))
    said.append(sorted(users.index_information()))
    said.append(database.list_collection_names())
    said.append(users.delete_many({"n": {"$gt": 3}}).deleted_count)
    for wrong in (lambda: users.insert_one({"_id": 1}), lambda: database.command("nosuch")):
        with pytest.raises(errors.OperationFailure) as error:
            wrong()
        said.append(error.value.code)
    unacknowledged = users.with_options(write_concern=pymongo.WriteConcern(w=0))
    unacknowledged.insert_one({"_id": 1000})
    said.append(users.find_one({"_id": 1000}))
    return said


@pytest.fixture(scope="module")
def told(server: int) -> list[Any]:
    """What the server itself says."""
    with client(server) as direct:
        return battery(direct.app)


WAYS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "every answer looked at": {"mask_rows": lambda rows: rows.values},
    "every command rewritten": {"rewrite": lambda text: text},
    "in pieces of 61 bytes": {"piece": 61, "mask_rows": lambda rows: rows.values},
}


@pytest.mark.parametrize("way", WAYS)
def test_every_answer_arrives_as_it_was_said(server: int, told: list[Any], way: str) -> None:
    """Documents with values of every type, cursors, writes, errors and unacknowledged writes: as the server answers."""
    with relay(PROTOCOL.inspector, server, **WAYS[way]) as via, client(via.port) as db:
        assert battery(db.app) == told


def test_compression_is_not_agreed_on(server: int) -> None:
    """A client that offers compression is understood by the server to offer none, and both go on without."""
    with relay(PROTOCOL.inspector, server) as via, client(via.port, compressors="zlib") as db:
        assert db.app.command("ping")["ok"] == 1
    assert b"zlib" not in via.sent_up


def test_a_refused_command_is_an_error_and_the_connection_lives_on(server: int) -> None:
    """OperationFailure with code 13 and the rule; the same connection goes on; an unacknowledged write is dropped."""
    with relay(PROTOCOL.inspector, server, decide=forbidden) as via, client(via.port, maxPoolSize=1) as db:
        number = db.app.command("hello")["connectionId"]
        for refused in (
            lambda: db.app.users.find_one({"forbidden": 1}),
            lambda: db.app.users.insert_one({"forbidden": 1}),
            lambda: db.app.users.update_one({}, {"$set": {"a": "forbidden"}}),
        ):
            with pytest.raises(errors.OperationFailure, match="session 0a1b") as denial:
                refused()
            assert denial.value.code == 13
        db.app.users.with_options(write_concern=pymongo.WriteConcern(w=0)).insert_one({"forbidden": 2})
        assert db.app.command("hello")["connectionId"] == number
    assert b"forbidden" not in via.sent_up


def test_values_are_hidden_wherever_they_are(server: int) -> None:
    """In documents of finds, cursors and aggregations, in what a write returns, in errors and names; types stay."""
    with client(server) as direct:
        direct.app.hidden.drop()
        direct.app.hidden.insert_many([{"_id": n, "a": {"b": [SECRET, n]}, "bytes": b"xx secret"} for n in range(30)])
        direct.app.hidden.insert_one({"_id": "key", SECRET: 1})
        direct.app.hidden.create_index("u", unique=True, sparse=True)
        direct.app.hidden.insert_one({"_id": "u", "u": SECRET})
    how = {"mask_rows": starred, "mask_text": lambda text: text.data.replace(SECRET.encode(), STARS.encode())}
    with relay(PROTOCOL.inspector, server, **how) as via, client(via.port) as db:
        hidden = db.app.hidden
        for document in hidden.find({"_id": {"$type": "int"}}, batch_size=10):
            assert document == {"_id": document["_id"], "a": {"b": [STARS, document["_id"]]}, "bytes": None}
        assert hidden.find_one({"_id": "key"}) == {"_id": "key", STARS: 1}
        assert hidden.distinct("u") == [STARS]
        assert hidden.find_one_and_update({"_id": "u"}, {"$set": {"x": 1}})["u"] == STARS
        (renamed,) = hidden.aggregate([{"$match": {"_id": "u"}}, {"$project": {"other": "$u"}}])
        assert renamed["other"] == STARS
        with pytest.raises(errors.DuplicateKeyError) as error:
            hidden.insert_one({"u": SECRET})
        assert SECRET not in re.sub(r"hidden\.insert", "", str(error.value.details))


def test_commands_are_rewritten(server: int) -> None:
    """Strings of documents, filters and updates are replaced before they leave; what is no string becomes null."""
    rewrite = {"rewrite": lambda text: text.replace(b"secret", b"######")}
    with relay(PROTOCOL.inspector, server, **rewrite) as via, client(via.port) as db:
        db.app.written.drop()
        db.app.written.insert_one({"_id": 1, "a": ["secret", {"secret": b"secret"}]})
        db.app.written.update_one({"_id": 1}, {"$set": {"b": "secret"}})
    with client(server) as direct:
        assert direct.app.written.find_one() == {"_id": 1, "a": ["######", {"######": None}], "b": "######"}
    assert b"secret" not in via.sent_up


def test_facts_say_what_is_touched(server: int) -> None:
    """Operation, collections of every stage, and fields, of what pymongo really sends."""
    said: dict[str, Callable[[Any], object]] = {
        "read: app.users": lambda db: db.users.find_one({"a.b": 1}, {"c": 1}),
        "read: app.users, app.orders, app.more": lambda db: list(
            db.users.aggregate(
                [
                    {"$lookup": {"from": "orders", "localField": "a", "foreignField": "b", "as": "o"}},
                    {"$unionWith": "more"},
                ]
            )
        ),
        "write: app.users, app.copies": lambda db: list(db.users.aggregate([{"$out": "copies"}])),
        "write: app.users, other.copies": lambda db: list(
            db.users.aggregate([{"$merge": {"into": {"db": "other", "coll": "copies"}}}])
        ),
        "unknown: app.users": lambda db: list(db.users.find({"$where": "true"})),
        "ddl: app.gone": lambda db: db.gone.drop(),
        "ddl: dropped.*": lambda db: db.client.drop_database("dropped"),
        "admin: ": lambda db: db.client.admin.command("getParameter", "*"),
    }
    with relay(PROTOCOL.inspector, server) as via, client(via.port) as db:
        for act in said.values():
            with suppress(errors.OperationFailure):  # what this server does not know was asked all the same
                act(db.app)
    facts = [one.facts for one in via.requests if "operation" in one.facts]
    assert [f"{one['operation']}: {one.get('table', '')}" for one in facts] == list(said)


def recorded(via: Relay) -> str:
    return "\n".join(request.text for request in via.requests)


def test_scram_passes_and_is_in_no_record(server: int) -> None:
    """SCRAM-SHA-256, with and without its first message in the hello, logs in; nothing of it is in the texts."""
    with client(server) as direct:
        direct.app.command("dropAllUsersFromDatabase")
        direct.app.command("createUser", "ada", pwd="not-a-secret", roles=["readWrite"])
    with relay(PROTOCOL.inspector, server) as via:
        with client(via.port, username="ada", password="not-a-secret", authSource="app") as db:
            assert db.app.users.count_documents({}) >= 0
            db.app.command("createUser", "eve", pwd="another-secret", roles=[])
        with pytest.raises(errors.OperationFailure):
            client(via.port, username="ada", password="wrong", authSource="app").app.users.find_one()
    assert {one.facts["user"] for one in via.requests if one.operation == "createUser"} == {"ada"}
    text = recorded(via)
    assert "n=ada" not in text
    assert "another-secret" not in text
    assert "(hidden)" in text


# --- whole sessions of the proxy


@pytest.fixture(scope="module")
def cards(server: int) -> int:
    """The server, with two customers."""
    with client(server) as direct:
        direct.shop.customers.drop()
        direct.shop.customers.insert_many(
            [
                {"_id": 1, "name": "Ada", "pay": {"card": CARD, "number": bson.Int64(int(CARD))}, "ssn": "none"},
                {"_id": 2, "name": "Bob", "pay": [{"card": "none"}], "ssn": 123},
            ]
        )
    return server


def test_documents_are_masked_and_recorded(cards: int) -> None:
    """Cards are stars in strings and null in numbers; the row says what was asked, of what, and how much was hidden."""
    with Gateway(cards, allow("credit_card")) as gateway:
        with client(gateway.port) as db:
            ada, bob = db.shop.customers.find().sort("_id")
        assert ada == {"_id": 1, "name": "Ada", "pay": {"card": MASKED_CARD, "number": None}, "ssn": "none"}
        assert bob["pay"] == [{"card": "none"}]
        gateway.until(lambda: gateway.exchanges("find") and "status" in gateway.exchanges("find")[0])
        row = gateway.exchanges("find")[0]
        assert (row["facts"]["table"], row["facts"]["operation"], row["rows"]) == ("shop.customers", "read", 2)
        assert row["masked"] == {"credit_card": 2}
        assert row["text"] == '{"find": "customers", "filter": {}, "sort": {"_id": 1}, "$db": "shop"}'


def test_fields_are_masked_by_name(cards: int) -> None:
    """A rule on a field hides it in every document, also where an aggregation gives it another name; one on a document
    hides all of it."""
    mask = MaskSpec(columns=(Column("customers.ssn"), Column("customers.pay")))
    with Gateway(cards, rule(mask=mask)) as gateway, client(gateway.port) as db:
        assert list(db.shop.customers.find().sort("_id")) == [
            {"_id": 1, "name": "Ada", "pay": None, "ssn": "****"},
            {"_id": 2, "name": "Bob", "pay": None, "ssn": None},
        ]
        said = list(
            db.shop.customers.aggregate([{"$sort": {"_id": 1}}, {"$project": {"other": {"$toString": "$ssn"}}}])
        )
        assert {one["other"] for one in said} <= {None, "****"}
        assert list(db.shop.customers.aggregate([{"$count": "customers"}])) == [{"customers": 2}]


def test_only_reads_of_one_collection(cards: int) -> None:
    """Under a rule for reads of `shop.customers` everything else is refused, and pymongo's own commands are not."""
    only = Only(operation=("read",), table=("shop.customers",), database=("shop",))
    with Gateway(cards, rule(only=only)) as gateway, client(gateway.port) as db:
        assert db.shop.customers.count_documents({}) == 2
        for refused in (
            db.shop.orders.find_one,
            db.other.customers.find_one,
            lambda: db.shop.customers.insert_one({}),
            lambda: list(db.shop.customers.aggregate([{"$lookup": {"from": "orders", "as": "o", "pipeline": []}}])),
            lambda: list(db.shop.customers.aggregate([{"$out": "copies"}])),
            lambda: list(db.shop.customers.find({"$where": "sleep(1)"})),
        ):
            with pytest.raises(errors.OperationFailure) as denial:
                refused()
            assert denial.value.code == 13
        assert db.shop.customers.count_documents({}) == 2


class TlsEnd:
    """Ends TLS in front of a server that speaks clear, with a certificate for `localhost`."""

    def __init__(self, port: int, pem: Path) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(pem)
        self._server_port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._carry, args=(client,), daemon=True).start()

    def _carry(self, client: socket.socket) -> None:
        with (
            suppress(OSError),
            self._context.wrap_socket(client, server_side=True) as near,
            socket.create_connection(("127.0.0.1", self._server_port)) as far,
        ):
            threading.Thread(target=self._copy, args=(far, near), daemon=True).start()
            self._copy(near, far)

    @staticmethod
    def _copy(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.close()


def test_tls_ends_here(cards: int, tmp_path: Path) -> None:
    """pymongo verifies our certificate, the server's is verified by us, and inside it is MongoDB as ever, masked."""
    public, ours = Authority.create(tmp_path / "public"), Authority.create(tmp_path / "ours")
    pem = tmp_path / "server.pem"
    pem.write_text(public.leaf("localhost").pem)
    with (
        closing(TlsEnd(cards, pem)) as end,
        Gateway(end.port, allow("credit_card"), authority=ours, trust=public.certificate, told="localhost") as gateway,
        pymongo.MongoClient(
            "localhost",
            gateway.port,
            directConnection=True,
            tls=True,
            tlsCAFile=str(tmp_path / "ours/ca.pem"),
            serverSelectionTimeoutMS=20_000,
        ) as db,
    ):
        assert db.shop.customers.find_one({"_id": 1})["pay"]["card"] == MASKED_CARD
        assert gateway.exchanges("find")[0]["facts"]["host"] == "localhost"
