"""A column that a rule hides is hidden on every way out of a real server, by which a real client may ask for it."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

import psycopg
import pytest
from psycopg.pq import TransactionStatus

from enforcer.verdict import Column, MaskSpec
from tests.databases.conftest import PostgresServer
from tests.databases.gateway import Gateway, rule
from tests.protocols import wire_postgres as wire

SECRET = "Kx7-zebra-quartz"
"""A value that no detector knows, so that only its column gives it away."""
PARTS = ("zebra", "quartz", SECRET[::-1], SECRET.upper(), SECRET.encode().hex())
SCHEMA = f"""
    create table users (id int primary key, name text not null, secret text unique);
    insert into users values (1, 'Ana', '{SECRET}'), (2, 'Bo', null);
    create view everyone as select id, secret from users;
    create function teller() returns text language sql as 'select secret from users limit 1';
    create function shout() returns void language plpgsql as
      $$ begin raise notice '%', (select secret from users limit 1); end $$;
    create function constant() returns text immutable language plpgsql as
      $$ begin return (select secret from users limit 1); end $$;
    create table copies (secret text check (length(secret) < 3));
    create table лица (имя text);
    insert into лица values ('{SECRET}');
    create view faces as select имя from лица;
"""


@pytest.fixture(scope="module")
def database(postgres_server: PostgresServer) -> Iterator[int]:
    """The server's port; the tables are in a database of their own."""
    direct = f"host=127.0.0.1 port={postgres_server.port} user=postgres"
    with psycopg.connect(direct, autocommit=True) as connection:
        connection.execute("create database columns")
        with psycopg.connect(f"{direct} dbname=columns", autocommit=True) as inside:
            inside.execute(SCHEMA)
        yield postgres_server.port
        connection.execute("drop database columns with (force)")


@pytest.fixture(scope="module")
def gateway(database: int) -> Iterator[Gateway]:
    hidden = MaskSpec(
        columns=(Column("users.secret"), Column("everyone.secret"), Column("copies.secret"), Column("*.имя"))
    )
    with Gateway(database, rule(mask=hidden)) as running:
        yield running


def url(gateway: Gateway) -> str:
    return f"host=127.0.0.1 port={gateway.port} user=postgres dbname=columns"


QUERIES = (
    "select secret from users",
    "select * from users",
    "select * from users order by secret desc",
    "select u.* from users u",
    "select secret as x from users",
    'select secret as "name" from users',
    "select upper(secret) from users",
    "select reverse(secret) from users",
    "select encode(secret::bytea, 'hex') from users",
    "select string_agg(secret, ',') from users",
    "select case when true then secret end from users",
    "select coalesce(secret, 'none') || '!' from users",
    "select u from users u",
    "select users from users",
    "select row_to_json(u) from users u",
    "select u.row_to_json from users u",
    "select q.concat from (select * from users) q",
    "select to_jsonb(u) from users u",
    "select json_agg(users) from users",
    "select row(secret) from users",
    "select array_agg(secret) from users",
    "select (select secret from users limit 1)",
    "select x from (select secret as x from users) q",
    "with q as (select secret as x from users) select x from q",
    "with q(a, b) as (select id, secret from users) select b as a, a as b from q",
    "with recursive r as (select secret s, 1 n from users union all select s, 2 from r where n < 2) select s from r",
    "select name from users union all select secret from users",
    "select id::text, name from users union select secret, name from users",
    "select x from users, lateral (select secret as x) l",
    "select e.secret as mine from everyone e",
    "select teller()",
    "select * from teller()",
    "table users",
    "update users set name = name returning secret",
    "insert into copies (secret) select null returning (select secret from users limit 1)",
    "delete from users where false returning *",
    "with d as (update users set name = name returning secret as y) select y from d",
    "select query_to_xml('select secret from users', true, false, '')",
    "select min(secret), max(secret) from users group by id",
    "select first_value(secret) over (order by id) from users",
    "values ((select secret from users limit 1))",
    "explain (analyze, costs off) select secret from users",
    "explain verbose select constant()",
    "explain select name from users where secret = constant()",
    "select secret::varchar(4000) from users",
    "select substr(secret, 1, 9), substr(secret, 10) from users",
    "select xmlelement(name a, secret) from users",
    "select format('%s', secret) from users",
    "select unnest(array[secret]) from users",
    "select (u).secret from users u",
    "select jsonb_build_object('a', secret) from users",
    "select name, (select string_agg(secret, '') from users) as name from users",
)


def shown(rows: object) -> str:
    return repr(rows)


def assert_hidden(text: str) -> None:
    assert not [part for part in PARTS if part in text], text


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("query", QUERIES)
def test_no_query_shows_it(gateway: Gateway, query: str, binary: bool) -> None:
    """By alias, function, row, union, view, subquery, RETURNING; in text and in binary, first and prepared again."""
    with psycopg.connect(url(gateway), autocommit=True) as connection:
        assert_hidden(shown(connection.execute(query).fetchall()))
        for _ in range(2):
            assert_hidden(shown(connection.execute(query, prepare=True, binary=binary).fetchall()))


def test_other_columns_are_shown(gateway: Gateway) -> None:
    """The rule hides its column and no more: names, numbers and NULLs of the others arrive, in both formats."""
    with psycopg.connect(url(gateway)) as connection:
        for binary in (False, True):
            found = connection.execute("select * from users order by id", binary=binary).fetchall()
            assert found == [(1, "Ana", "*" * 16), (2, "Bo", None)]
            found = connection.execute(
                "select name, count(*) from users group by name order by 1", binary=binary
            ).fetchall()
            assert found == [("Ana", 1), ("Bo", 1)]


@pytest.mark.parametrize(
    "statements",
    [
        ("declare c cursor for select secret from users", "fetch all from c"),
        ("declare c cursor for select secret as x from users", "fetch 1 from c", "fetch next in c", "move c"),
        ("declare c cursor for select name from users", "close c", "declare c cursor for table users", "fetch all c"),
        ('declare "C" no scroll cursor with hold for select secret as y from users', 'fetch forward all from "C"'),
        ("prepare p as select secret as x from users", "execute p"),
        ("prepare p (int) as select secret as x from users where id = $1", "execute p (1)"),
        ("select set_config('application_name', secret, true) from users", "show application_name"),
        ("select set_config('search_path', secret, true) from users where id = 1", "show search_path"),
        ("select set_config('my.own', secret, true) from users", "show my.own"),
        ("select set_config('timezone', '<' || secret || '>0', true) from users where id = 1", "show time zone"),
        ("prepare p as select 1", "deallocate p", "prepare p as select secret from users", "execute p"),
        ("select set_config('my.own', secret, true) from users where id = 1", "prepare p (text) as select $1",
         "execute p (current_setting('my.own'))"),
    ],
)  # fmt: skip
def test_cursors_and_prepared_statements_keep_their_columns(gateway: Gateway, statements: tuple[str, ...]) -> None:
    """What FETCH and EXECUTE give back has the columns of the query they name."""
    with psycopg.connect(url(gateway)) as connection:
        for statement in statements:
            found = connection.execute(statement, prepare=False)
            assert_hidden(shown(found.fetchall() if found.description else ""))
        connection.rollback()
        connection.execute("deallocate all")


def spoken(gateway: Gateway, *messages: bytes) -> bytes:
    """What the server says to messages that are all sent at once, up to the answer to the Sync at their end."""
    with socket.create_connection(("127.0.0.1", gateway.port)) as client:
        client.settimeout(30)
        client.sendall(wire.startup(user="postgres", database="columns"))
        _until_ready(client, 1)
        client.sendall(b"".join((*messages, wire.SYNC)))
        return _until_ready(client, 1 + sum(message[:1] in b"QS" for message in messages))


def _until_ready(client: socket.socket, times: int) -> bytes:
    told = b""
    while told.count(wire.ready()[:-1]) < times:
        more = client.recv(65536)
        assert more, told
        told += more
    return told


@pytest.mark.parametrize(
    "messages",
    [
        (wire.query("deallocate s; prepare s as select secret from users"), wire.bind(statement="s"), wire.execute()),
        (wire.query("deallocate s"), wire.query("prepare s as select secret from users"), wire.bind(statement="s"),
         wire.execute()),
        (wire.query("begin"), wire.bind(statement="s", portal="c"), wire.SYNC, wire.query("close c"),
         wire.query("declare c cursor for select secret from users"), wire.execute("c")),
        (wire.query("prepare p as select name from users"), wire.parse("execute p", "e"), wire.SYNC,
         wire.query("deallocate p"), wire.query("prepare p as select secret from users"), wire.bind(statement="e"),
         wire.execute()),
        (wire.query("begin"), wire.query("prepare q as select name from users"), wire.parse("execute q", "e"),
         wire.bind(statement="e", portal="x"), wire.SYNC, wire.query("deallocate q"),
         wire.query("prepare q as select secret from users"), wire.execute("x")),
        (wire.query("begin"), wire.query("declare d cursor for select name from users"), wire.parse("fetch d", "e"),
         wire.SYNC, wire.query("close d"), wire.query("declare d cursor for select secret from users"),
         wire.bind(statement="e"), wire.execute()),
    ],
)  # fmt: skip
def test_names_mean_what_sql_makes_them_mean(gateway: Gateway, messages: tuple[bytes, ...]) -> None:
    """A name of the protocol's own that SQL gives another meaning, in the same breath as it is used again."""
    told = spoken(gateway, wire.parse("select name from users", "s"), wire.SYNC, *messages)
    assert wire.row(b"*" * 16) in told
    assert_hidden(told.decode("latin-1"))


def test_each_result_is_of_its_own_statement(gateway: Gateway) -> None:
    """Several statements in one text: of each the columns that it returns, whatever returns none between them."""
    texts = {
        "select name from users order by id; select secret from users order by id; select 1": [
            [("Ana",), ("Bo",)], [("*" * 16,), (None,)], [(1,)],
        ],
        "begin; update users set name = name where false; select name, secret from users where id = 1; commit": [
            [("Ana", "*" * 16)],
        ],
        "select 1 where false; ; /* nothing */; select id from users order by id": [[], [(1,), (2,)]],
        "select count(*) from users; select teller() || '!' from users where id = 1": [[(2,)], [("*" * 16,)]],
    }  # fmt: skip
    with psycopg.connect(url(gateway), autocommit=True) as connection, connection.cursor() as cursor:
        for text, results in texts.items():
            cursor.execute(text, prepare=False)
            assert [one.fetchall() for one in cursor.results() if one.description] == results, text


def test_where_results_may_be_of_other_statements_all_are_hidden(gateway: Gateway) -> None:
    """The statements in the body of a function end in semicolons and are answered by nothing."""
    text = """
        create function pg_temp.two() returns text begin atomic select secret from users; select name from users; end;
        select secret from users; select name from users
    """
    with psycopg.connect(url(gateway), autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute(text, prepare=False)
        assert_hidden(shown([one.fetchall() for one in cursor.results() if one.description]))


def test_a_cursor_shows_other_columns(gateway: Gateway) -> None:
    """A named cursor of psycopg, whose query is known, is not hidden wholly."""
    with psycopg.connect(url(gateway)) as connection, connection.cursor(name="mine") as cursor:
        cursor.execute("select id, name, secret from users order by id")
        assert cursor.fetchall() == [(1, "Ana", "*" * 16), (2, "Bo", None)]


ERRORS = (
    "insert into users select 3, 'x', secret from users where id = 1",
    "insert into copies select secret from users",
    "select secret::int from users",
    "select secret::regclass from users",
    "select secret::date from users",
    "select to_number(secret, 'XX') / 0 from users",
    "select current_setting(secret) from users",
    "select date_trunc(secret, now()) from users",
    "select secret::json from users",
    "select secret::xml is document, xmlparse(document secret) from users",
    "select pg_read_file(secret) from users",
    "select query_to_xml(secret, true, false, '') from users",
    "do $$ begin raise exception '%', (select secret from users limit 1); end $$",
    "do $$ begin raise notice '%', (select secret from users limit 1); end $$",
    "do $$ declare s text := (select secret from users limit 1); begin raise exception 'x' using errcode = '23505',"
    " schema = s, table = s, column = s, datatype = s, constraint = s; end $$",
    "select shout()",
    "insert into users values (1, 'x', (select secret || 'y' from users limit 1))",
    "update users set name = null where id = 1",
)


@pytest.mark.parametrize("statement", ERRORS)
def test_no_error_or_notice_quotes_it(gateway: Gateway, statement: str) -> None:
    """Message, detail, hint and context of errors that came about at run time are hidden; the SQLSTATE is not."""
    notices: list[str] = []
    states: list[str | None] = []
    with psycopg.connect(url(gateway), autocommit=True) as connection:
        connection.add_notice_handler(
            lambda told: notices.append(f"{told.message_primary} {told.message_detail} {told.context}")
        )
        try:
            connection.execute(statement)
        except psycopg.Error as error:
            told = error.diag
            states.append(error.sqlstate)
            notices.append(f"{told.message_primary} {told.message_detail} {told.message_hint} {told.context}")
            notices += map(str, (told.schema_name, told.table_name, told.column_name, told.datatype_name))
            notices.append(str(told.constraint_name))
    assert notices
    assert all(states)
    assert_hidden(" ".join(notices))


def test_errors_about_the_statement_stay_readable(gateway: Gateway) -> None:
    """They were made before there were data: a name that does not exist, a syntax error."""
    with psycopg.connect(url(gateway), autocommit=True) as connection:
        with pytest.raises(psycopg.errors.UndefinedTable, match='relation "nowhere" does not exist'):
            connection.execute("select * from nowhere")
        with pytest.raises(psycopg.errors.SyntaxError, match='at or near "selec"'):
            connection.execute("selec 1")
        with pytest.raises(psycopg.errors.UniqueViolation, match='violates unique constraint "users_pkey"'):
            connection.execute("insert into users values (1, 'x')")


@pytest.mark.parametrize(
    "copy",
    [
        "copy users to stdout",
        "copy users (id, secret) to stdout",
        "copy (select id, secret as x from users) to stdout",
        "copy (select * from users) to stdout",
    ],
)
def test_no_copy_shows_it(gateway: Gateway, copy: str) -> None:
    """As text it is masked cell by cell."""
    with psycopg.connect(url(gateway), autocommit=True) as connection, connection.cursor().copy(copy) as out:
        told = b"".join(bytes(piece) for piece in out)
    assert b"*" * 16 in told
    assert_hidden(told.decode())


@pytest.mark.parametrize(
    "copy",
    [
        "copy users to stdout (format csv)",
        "copy users to stdin (format csv)",
        "copy (select secret from users) to stdin with binary",
        "copy users to stdout with (delimiter ',', null 'x')",
        "copy users to stdout (format binary)",
        "copy users to stdout with binary",
        "copy binary users to stdout",
        "copy /* */ (select 'to stdout', secret from users) to stdout with (format 'binary')",
        "copy users to stdout (format U&'\\0062inary')",
    ],
)
def test_a_copy_that_cannot_be_masked_is_refused_and_the_connection_lives_on(gateway: Gateway, copy: str) -> None:
    """Before anything of it goes to the server, in a transaction that goes on; whether it is prepared or not."""
    with psycopg.connect(url(gateway)) as connection:
        connection.execute("select 1")
        for refused in (copy, f"select 1; {copy}"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match=r"cannot be masked.*use its text format"):
                connection.execute(refused, prepare=False)
            assert connection.info.transaction_status == TransactionStatus.INTRANS
        with pytest.raises(psycopg.errors.InsufficientPrivilege), connection.cursor().copy(copy) as out:
            list(out)
        assert connection.execute("select name from users where id = 1").fetchone() == ("Ana",)
    assert not [row for row in gateway.exchanges() if row["text"] == copy and row["action"] == "allow"]


@pytest.mark.parametrize("encoding", ["utf8", "win1251", "koi8r", "iso88595"])
def test_names_in_another_encoding_are_hidden(gateway: Gateway, encoding: str) -> None:
    """A client that writes and reads names in a character set of its own is not understood, and sees no column."""
    texts = ("select имя from лица", "select * from лица", "select имя as x from лица", "table faces")
    with psycopg.connect(url(gateway), autocommit=True, client_encoding=encoding) as connection:
        for text in texts:
            assert_hidden(shown(connection.execute(text).fetchall()))
        for copy in ("copy лица to stdout", "copy лица (имя) to stdout", "copy (select имя from лица) to stdout"):
            with connection.cursor().copy(copy) as out:
                assert_hidden(b"".join(bytes(piece) for piece in out).decode("latin-1"))
        assert connection.execute("select name, 'имя' as x from users where id = 1").fetchone() == ("Ana", "имя")


def test_copy_shows_other_columns(gateway: Gateway) -> None:
    """Text with escapes and NULLs is what it was but for the column."""
    with (
        psycopg.connect(url(gateway), autocommit=True) as connection,
        connection.cursor().copy(
            r"copy (select id, name || E'\t\\' || name as n, secret, secret as s from users order by id) to stdout"
        ) as out,
    ):
        assert list(out.rows()) == [("1", "Ana\t\\Ana", "*" * 16, "*" * 16), ("2", "Bo\t\\Bo", None, None)]


def test_notifications_and_settings_are_hidden(gateway: Gateway) -> None:
    """What one statement puts into them comes back with another, without a column."""
    with psycopg.connect(url(gateway), autocommit=True) as connection:
        connection.execute("listen told")
        connection.execute("select pg_notify('told', secret) from users where id = 1")
        (notify,) = connection.notifies(timeout=30, stop_after=1)
        assert_hidden(notify.payload)
        connection.execute("select set_config('application_name', secret, false) from users where id = 1")
        assert_hidden(str(connection.info.parameter_status("application_name")))
        connection.execute("select set_config('TimeZone', '<' || secret || '>0', false) from users where id = 1")
        assert_hidden(str(connection.info.parameter_status("TimeZone")).lower())
        for zone in ("UTC", "Europe/Berlin", "Etc/GMT+5", "<+02>-02"):
            connection.execute(f"set time zone '{zone}'")
            assert connection.info.parameter_status("TimeZone") == zone


def test_a_function_call_shows_nothing(gateway: Gateway, database: int) -> None:
    """The protocol's own FunctionCall, by OID: its result is NULL to a client that asked for binary."""
    with psycopg.connect(f"host=127.0.0.1 port={database} user=postgres dbname=columns") as direct:
        (oid,) = direct.execute("select 'teller'::regproc::oid::int8").fetchone() or (0,)
    with socket.create_connection(("127.0.0.1", gateway.port)) as client:
        client.settimeout(30)
        body = b"user\0postgres\0database\0columns\0\0"
        client.sendall(struct.pack(">ii", len(body) + 8, 196608) + body)
        told = b""
        while b"Z\0\0\0\5I" not in told:
            told += client.recv(65536)
        client.sendall(b"F" + struct.pack(">iihhh", 14, oid, 0, 0, 0))
        told = b""
        while b"Z\0\0\0\5I" not in told:
            told += client.recv(65536)
    assert told == b"V" + struct.pack(">ii", 24, 16) + b"*" * 16 + b"Z\0\0\0\5I"


def test_what_is_written_is_hidden_on_its_way_out(database: int) -> None:
    """`mask: request`: literals and COPY data by detector, parameters by their column too: the server has none."""
    spec = MaskSpec(detectors=("credit_card",))
    card, other = "4111111111111111", "zebra"
    with (
        Gateway(database, rule(request_mask=spec)) as by_value,
        Gateway(database, rule(request_mask=MaskSpec(columns=(Column("sent.b"),)))) as by_column,
        psycopg.connect(f"host=127.0.0.1 port={database} user=postgres dbname=columns", autocommit=True) as direct,
    ):
        direct.execute("create table sent (a text, b text, c int)")
        with psycopg.connect(url(by_value), autocommit=True) as connection:
            connection.execute(f"insert into sent values ('lit', '{card}', 1)")
            connection.execute("insert into sent values (%s, %s, %s)", ("par", card, 2))
            connection.execute("insert into sent values (%b, %b, %b)", ("bin", card, 3))
            with connection.cursor().copy("copy sent from stdin") as copy:
                copy.write(f"copy\t{card}\t4\n")
            for prepare in (False, True):
                with pytest.raises(psycopg.errors.InsufficientPrivilege, match="is not within a literal"):
                    connection.execute(f"select ${card}", prepare=prepare)
                assert connection.execute("select 1").fetchone() == (1,)
        given_up = wire.msg("f", f"no line: {card}".encode() + b"\0")
        told = spoken(by_value, wire.query("copy sent from stdin"), given_up)
        assert b"COPY from stdin failed: the client gave up" in told
        with psycopg.connect(url(by_column), autocommit=True) as connection:
            for prepare in (False, True):
                connection.execute("insert into sent (a, b) values (%s, %s)", ("col", other), prepare=prepare)
        found = direct.execute("select a, b from sent order by c nulls last, a").fetchall()
    masked = "*" * 12 + "1111"
    assert found == [
        ("lit", masked),
        ("par", masked),
        ("bin", masked),
        ("copy", masked),
        ("col", "*" * 5),
        ("col", "*" * 5),
    ]
