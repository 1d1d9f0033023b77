"""MySQL's connection phase and commands: what is offered, judged, refused and answered, message by message."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enforcer.errors import LimitExceeded
from enforcer.flow import Side
from enforcer.protocols.base import Forward, Outcome, Probe, Request
from enforcer.protocols.mysql import PROTOCOL
from enforcer.protocols.mysql.charsets import fault_of, is_read
from enforcer.verdict import Denial
from tests.conversation import DENIAL, Conversation, Decide
from tests.protocols import wire_mysql as my

MASKABLE = my.BASIC | my.SESSION_TRACK


def refusing(*operations: str) -> Decide:
    return lambda request: DENIAL if request.operation in operations or request.fault else None


def greeted(capabilities: int = my.BASIC, **how: object) -> Conversation:
    """A conversation in which the server has greeted."""
    talk = Conversation(PROTOCOL.inspector(), **how)  # type: ignore[arg-type]
    talk.server_sends(my.greeting(capabilities))
    talk.expect_request("Connect", "")
    talk.take_client()
    talk.expect_outcome("8.0.36")
    return talk


def logged_in(capabilities: int = my.BASIC, **how: object) -> Conversation:
    """A conversation in which commands may be sent."""
    talk = greeted(capabilities, **how)
    talk.client_sends(my.login(capabilities, database=b"shop"))
    talk.expect_request("Login", "user=app database=shop", user="app", database="shop")
    talk.expect_upstream(my.login(capabilities, database=b"shop"))
    talk.server_sends(my.ok(2))
    talk.expect_client(my.ok(2))
    talk.expect_outcome("OK")
    return talk


# --- the greeting


def test_a_greeting_is_told_from_anything_else() -> None:
    """Protocol 10 with a version, or an error in its place; not what SSH, SMTP or FTP say first."""
    assert PROTOCOL.greets(my.greeting()) is Probe.YES
    assert PROTOCOL.greets(my.err(0, 1040, b"", b"Too many connections")) is Probe.YES
    for other in (
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"220 mail ESMTP\r\n",
        b"HTTP/1.1 400 Bad Request\r\n",
        my.greeting()[4:],
    ):
        assert PROTOCOL.greets(other) is Probe.NO
    assert PROTOCOL.greets(my.greeting(version=b"8" * 60)) is Probe.NO


@given(st.binary(min_size=1, max_size=100))
def test_the_answer_to_a_greeting_stands(data: bytes) -> None:
    """More bytes do not change it, and 64 are enough to be certain."""
    answers = [PROTOCOL.greets(data[:size]) for size in range(1, len(data) + 1)]
    decided = [answer for answer in answers if answer is not Probe.MORE]
    assert len(set(decided)) <= 1
    assert len(data) < 64 or decided


def test_what_cannot_be_read_is_not_offered() -> None:
    """Compression, LOCAL INFILE, TLS that nobody here ends, optional metadata and MariaDB's own are taken out."""
    unread = my.COMPRESS | my.ZSTD | my.LOCAL_FILES | my.OPTIONAL_METADATA
    with Conversation(PROTOCOL.inspector()) as talk:
        talk.server_sends(my.greeting(my.BASIC | unread, extended=0xFF))
        talk.expect_request("Connect")
        talk.expect_client(my.greeting(my.BASIC))
        talk.expect_outcome("8.0.36")
        talk.client_sends(my.login(my.BASIC | my.LOCAL_FILES))  # libmysqlclient says so without being asked
        talk.expect_request("Login")
        talk.expect_upstream(my.login(my.BASIC))


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (my.login(my.BASIC | my.COMPRESS), "compression was not offered"),
        (my.ssl_request(), "TLS was not offered"),
        (my.login(my.BASIC & ~my.PROTOCOL_41), "older than MySQL 4.1"),
        (my.login(collation=my.GBK), "collation 28 is not inspected"),
        (my.login(sequence=2), "packet number 2 where 1 was due"),
        (my.packet(b"\x00" * 31, 1), "older than MySQL 4.1"),
    ],
)
def test_logins_that_are_refused(message: bytes, words: str) -> None:
    """Each ends the flow in MySQL's words, with the number that the client is due, and nothing of it goes up."""
    with greeted() as talk:
        talk.client_sends(message)
        talk.expect_error(Side.CLIENT, words)
        assert talk.take_client()[4:13] == b"\xff" + struct.pack("<H", 1045) + b"#28000"


def test_tls_goes_on_with_the_same_inspector() -> None:
    """It is offered where the session takes it; the server is asked in the client's words, less what is not read."""
    with Conversation(PROTOCOL.inspector()) as talk:
        talk.server_sends(my.greeting(my.BASIC | my.SSL))
        talk.expect_request("Connect")
        talk.take_client()
        talk.expect_outcome("8.0.36")
        talk.client_sends(my.ssl_request(my.BASIC | my.SSL | my.LOCAL_FILES) + b"\x16\x03\x01")
        assert talk.start_tls is not None
        assert (talk.start_tls.ask, talk.start_tls.client) == (my.ssl_request(), b"\x16\x03\x01")
        talk.take_client()
        talk.take_upstream()
        talk.client_sends(my.login(my.BASIC | my.SSL, sequence=2))
        talk.expect_request("Login", user="app")
        talk.expect_upstream(my.login(my.BASIC | my.SSL, sequence=2))


def test_a_login_in_clear_that_says_it_is_in_tls_is_refused() -> None:
    """The server would take what follows for a handshake."""
    with greeted(my.BASIC | my.SSL) as talk:
        talk.client_sends(my.login(my.BASIC | my.SSL))
        talk.expect_error(Side.CLIENT, "said to be there where it is not")
        talk.take_client()


# --- refusals


def words_of(raw: bytes, sequence: int, code: int, state: bytes) -> bytes:
    assert raw == my.packet(raw[4:], sequence)
    marked = b"#" + state if state else b""
    assert raw[4:].startswith(b"\xff" + struct.pack("<H", code) + marked)
    return raw[7 + len(marked) :]


def test_a_connection_is_refused_in_place_of_the_greeting() -> None:
    """Before anything is agreed on, an error has no SQLSTATE."""
    with Conversation(PROTOCOL.inspector(), decide=refusing("Connect")) as talk:
        talk.client_sends(b"")
        talk.expect_request("Connect")
        assert DENIAL.title.encode() in words_of(talk.take_client(), 0, 1045, b"")
        assert talk.closed


def test_a_login_is_refused_as_servers_do() -> None:
    """1045, SQLSTATE 28000; the server is not told who it was."""
    with greeted(decide=refusing("Login")) as talk:
        talk.client_sends(my.login())
        talk.expect_request("Login")
        assert DENIAL.reason.encode() in words_of(talk.take_client(), 2, 1045, b"28000")
        assert talk.closed


@pytest.mark.parametrize(
    ("command", "operation", "fault"),
    [
        (my.query(b"DELETE FROM t"), "Query", ""),
        (my.command(2, b"mysql"), "InitDB", ""),
        (my.command(0x16, b"DELETE FROM t"), "Prepare", ""),
        (my.command(0x0C, struct.pack("<I", 7)), "ProcessKill", ""),
        (my.command(0x12, b"\0" * 10), "COM_BINLOG_DUMP", "COM_BINLOG_DUMP is not inspected"),
        (my.command(0x1E, b"\0" * 10), "COM_BINLOG_DUMP_GTID", "COM_BINLOG_DUMP_GTID is not inspected"),
        (my.command(0x15, b"\0" * 10), "COM_REGISTER_SLAVE", "COM_REGISTER_SLAVE is not inspected"),
        (my.command(0xFA, b"\0" * 10), "COM_STMT_BULK_EXECUTE", "COM_STMT_BULK_EXECUTE is not inspected"),
        (my.command(0x77), "command 0x77", "command 0x77 is not inspected"),
        (my.execute(9), "Execute", "the prepared statement is not known"),
        (
            my.query(b"SET NAMES gbk"),
            "Query",
            "it sets a character set in which statements cannot be read; use utf8mb4",
        ),
    ],
)
def test_a_refused_command_leaves_the_connection(command: bytes, operation: str, fault: str) -> None:
    """1142, SQLSTATE 42000, and the next command is answered; what is not read comes with its fault."""
    with logged_in(decide=refusing("Query", "InitDB", "Prepare", "ProcessKill")) as talk:
        talk.client_sends(command)
        assert talk.expect_request(operation).fault == fault
        assert DENIAL.title.encode() in words_of(talk.take_client(), 1, 1142, b"42000")
        talk.client_sends(my.command(0x0E))
        talk.expect_upstream(my.command(0x0E))
        talk.server_sends(my.ok(1))
        talk.expect_client(my.ok(1))


def test_a_refusal_fits_what_clients_show() -> None:
    """MYSQL_ERRMSG_SIZE: 512 bytes, cut between letters."""
    long = Denial("8.8.8.8:3306", "US", "8.8.8.0/24", "p", "r", "ü" * 600, "0a1b")
    with logged_in(decide=lambda request: long if request.operation == "Query" else None) as talk:
        talk.client_sends(my.query(b"SELECT 1"))
        talk.expect_request("Query")
        words = words_of(talk.take_client(), 1, 1142, b"42000")
        assert len(words) <= 512
        assert words.decode().endswith("ü...")


def test_what_the_server_says_before_it_closes_goes_on() -> None:
    """A time-out of an idle connection is told in an error that nobody asked for."""
    gone = my.err(0, 4031, b"08S01", b"The client was disconnected by the server because of inactivity.")
    with logged_in() as talk:
        talk.server_sends(gone)
        talk.expect_client(gone)
        talk.server_closes()


# --- authentication


def test_what_plugins_ask_for_is_passed_both_ways() -> None:
    """caching_sha2_password: a switch, full authentication with the server's public key, and the second factor."""
    key = my.packet(b"\x01-----BEGIN PUBLIC KEY-----", 6)
    steps = [
        (Side.SERVER, my.packet(b"\xfecaching_sha2_password\0" + b"n" * 20 + b"\0", 2)),
        (Side.CLIENT, my.packet(b"s" * 32, 3)),
        (Side.SERVER, my.packet(b"\x01\x04", 4)),
        (Side.CLIENT, my.packet(b"\x02", 5)),
        (Side.SERVER, key),
        (Side.CLIENT, my.packet(b"e" * 256, 7)),
        (Side.SERVER, my.packet(b"\x02second_factor\0data", 8)),
        (Side.CLIENT, my.packet(b"proof", 9)),
    ]
    with greeted() as talk:
        talk.client_sends(my.login())
        talk.expect_request("Login")
        talk.expect_upstream(my.login())
        for side, message in steps:
            if side is Side.SERVER:
                talk.server_sends(message)
                talk.expect_client(message)
            else:
                talk.client_sends(message)
                talk.expect_upstream(message)
        talk.server_sends(my.err(10, 1045, b"28000", b"Access denied"))
        talk.expect_client(my.err(10, 1045, b"28000", b"Access denied"))
        talk.expect_outcome("1045", failed=True)


def test_a_change_of_user_is_judged_and_told() -> None:
    """Later statements are another user's, in another database, once the server has agreed."""
    with logged_in() as talk:
        change = my.command(0x11, b"root\0\x03abcother\0" + struct.pack("<H", my.UTF8MB4) + b"mysql_native_password\0")
        talk.client_sends(change)
        talk.expect_request("ChangeUser", "user=root database=other", user="root", database="other")
        talk.expect_upstream(change)
        talk.server_sends(my.ok(1))
        talk.expect_client(my.ok(1))
        talk.expect_outcome("OK")
        talk.client_sends(my.query(b"SELECT 1"))
        talk.expect_request("Query", "SELECT 1", user="root", database="other")
        talk.take_upstream()


# --- answers


def test_several_results_are_one_exchange() -> None:
    """Rows of all of them are counted; the last one ends it."""
    answer = my.result(b"Ada", names=(b"name",), status=my.MORE | 2) + my.result(b"1", names=(b"id",), start=6)
    with logged_in() as talk:
        talk.client_sends(my.query(b"SELECT name FROM customers; SELECT id FROM customers"))
        assert talk.expect_request("Query").facts["operation"] == "read"
        talk.take_upstream()
        talk.server_sends(answer)
        talk.expect_client(answer)
        talk.expect_outcome("OK", rows=2)


def test_a_server_that_asks_for_a_file_gets_an_empty_one() -> None:
    """The client is not asked, sees the server's answer under the number it is due, and the attempt is recorded."""
    with logged_in() as talk:
        talk.client_sends(my.query(b"SELECT 1"))
        talk.expect_request("Query")
        talk.take_upstream()
        talk.server_sends(my.packet(b"\xfb/etc/passwd", 1))
        talk.expect_client(b"")
        talk.expect_upstream(my.packet(b"", 2))
        talk.server_sends(my.ok(3))
        talk.expect_client(my.ok(1))
        talk.expect_outcome("LOCAL INFILE refused", rows=0, failed=True)


def test_the_database_in_use_is_the_servers_word() -> None:
    """With session tracking a USE in a statement is heard of; so is a character set that cannot be read."""
    schema = my.lenenc(b"") + my.lenenc(b"\x01" + my.lenenc(my.lenenc(b"other")))
    charset = my.lenenc(b"") + my.lenenc(b"\0" + my.lenenc(my.lenenc(b"character_set_client") + my.lenenc(b"gbk")))
    with logged_in(MASKABLE, decide=refusing()) as talk:
        for tail in (schema, charset):
            talk.client_sends(my.query(b"CALL something()"))
            talk.expect_request("Query")
            talk.take_upstream()
            talk.server_sends(my.ok(1, status=my.TRACKED | 2, tail=tail))
            talk.expect_client(my.ok(1, status=my.TRACKED | 2, tail=tail))
            talk.expect_outcome("OK", rows=0)
        talk.client_sends(my.query(b"SELECT 1"))
        request = talk.expect_request("Query", database="other")
        assert "character set that is not inspected" in request.fault
        talk.take_client()


@pytest.mark.parametrize(
    "answer",
    [
        my.ok(2),  # out of order
        my.packet(b"", 1),
        my.count(1, 0),
        my.count(1, 1) + my.eof(2),  # no column
        my.count(1, 1) + my.column(2, b"a") + my.row(3, b"x"),  # no end of columns
        my.count(1, 1) + my.column(2, b"a") + my.eof(3) + my.row(5, b"x"),
        my.packet(b"\xfe\0\0\2\0", 1),
        my.packet(b"\xfd\xff\xff\xff", 1),  # sixteen million columns
        my.count(1, 1) + my.packet(b"\x03def\xff", 2),
    ],
)
def test_answers_that_are_none(answer: bytes) -> None:
    """A server that breaks the protocol ends the flow; nobody reads one answer as another."""
    with logged_in() as talk:
        talk.client_sends(my.query(b"SELECT a"))
        talk.expect_request("Query")
        talk.take_upstream()
        talk.server_sends(answer)
        talk.expect_error(Side.SERVER)
        talk.take_client()


def test_a_server_may_not_speak_out_of_turn() -> None:
    """An answer that nobody asked for would be taken for that to the next command."""
    with logged_in() as talk:
        talk.server_sends(my.ok(1))
        talk.expect_error(Side.SERVER, "without being asked")
        talk.take_client()


# --- limits and character sets


def test_a_command_over_the_limit_ends_the_flow() -> None:
    """Three full packets are 48 MiB: nothing of them goes up, and no more is kept than the limit."""
    inspector = logged_in().inspector
    full = my.packet(b"\x03" + b" " * 0xFFFFFE, 0)
    with pytest.raises(LimitExceeded):  # noqa: PT012 - either step may notice
        for sequence in range(3):
            inspector.receive_data(Side.CLIENT, full[:3] + bytes((sequence,)) + full[4:])
            assert not isinstance(inspector.next_event(), Request)


def test_a_statement_of_several_packets_is_one() -> None:
    """A statement of 16 MiB and more is judged as a whole and goes on as it came, in two packets."""
    text = b"SELECT '" + b"v" * 0x1000000 + b"'"
    payload = b"\x03" + text
    raw = my.packet(payload[:0xFFFFFF], 0) + my.packet(payload[0xFFFFFF:], 1)
    inspector = logged_in().inspector  # by hand: a dialogue writes down all that is said
    inspector.receive_data(Side.CLIENT, raw)
    request = inspector.next_event()
    assert isinstance(request, Request)
    assert request.text == text.decode()
    assert inspector.allow(request, masked=False) == raw
    row = my.lenenc(b"x") + b"\xfe" + (0x1000000).to_bytes(8, "little") + b"v" * 0x1000000
    big = my.packet(row[:0xFFFFFF], 6) + my.packet(row[0xFFFFFF:], 7)
    answer = my.count(2, 2) + my.column(3, b"a") + my.column(4, b"b") + my.eof(5) + big + my.eof(8)
    passed = b""
    for start in range(0, len(answer), 1 << 20):
        inspector.receive_data(Side.SERVER, answer[start : start + (1 << 20)])
        while (event := inspector.next_event()) is not None:
            if isinstance(event, Outcome):
                assert (event.rows, event.failed) == (1, False)
            else:
                assert isinstance(event, Forward)
                passed += event.raw
    assert passed == answer


@pytest.mark.parametrize(
    ("collation", "read"),
    [
        (45, True),
        (255, True),
        (8, True),
        (63, True),
        (2304, True),
        (28, False),
        (13, False),
        (2600, False),
        (1174, False),
    ],
)
def test_collations(collation: int, read: bool) -> None:
    """utf8mb4, latin1 and binary are read; gbk, sjis and UTF-16 are not, nor MariaDB's later and unpadded ones."""
    assert is_read(collation) is read


@pytest.mark.parametrize(
    "statement",
    [
        b"SET NAMES gbk", b"set /* */ names/**/'sjis'", b"/*!40101 SET NAMES big5 */", b"SET @a = 1, NAMES gbk",
        b"SET SESSION character_set_client = cp932", b"SET CHARACTER SET gbk",
        b"SELECT '/*'; SET NAMES gbk; SELECT '*/'",
        b"SET character_set_client = @x", b"SET @@character_set_client = CONCAT('g', 'bk')",
        b"SET @saved_cs_client = 'gbk'",
    ],
)  # fmt: skip
def test_character_sets_that_mislead_are_not_set(statement: bytes) -> None:
    """However it is written: by name, in comments that are executed, from variables and expressions."""
    assert fault_of(statement)


@pytest.mark.parametrize(
    "statement",
    [
        b"SET NAMES utf8mb4 COLLATE utf8mb4_general_ci", b"/*!40101 SET NAMES utf8mb4 */", b"SELECT names FROM charset",
        b"/*!40101 SET CHARACTER_SET_CLIENT=@OLD_CHARACTER_SET_CLIENT */",
        b"SET @saved_cs_client     = @@character_set_client",
        b"CREATE TABLE t (a CHAR(9) CHARACTER SET gbk)", b"SHOW VARIABLES LIKE 'character_set%'",
    ],
)  # fmt: skip
def test_what_clients_and_dumps_say_of_character_sets_passes(statement: bytes) -> None:
    """utf8mb4 by name, and what was set before."""
    assert fault_of(statement) == ""


@pytest.mark.parametrize("setting", [b"SET sql_mode = 'ANSI'", b"EXECUTE IMMEDIATE @x", b"SELECT 1; CALL p()"])
def test_what_mysql_does_not_tell_is_not_taken_to_be_as_before(setting: bytes) -> None:
    """MySQL says nothing of ANSI_QUOTES: behind what may have set it, double quotes are not understood."""
    with logged_in() as talk:
        for statement, operation in (
            (b'SELECT "a"', "read"),
            (setting, ""),
            (b'SELECT "a"', "unknown"),
            (b"SELECT 1", "read"),
        ):
            talk.client_sends(my.query(statement))
            assert operation in talk.expect_request("Query").facts["operation"]
            talk.take_upstream()
            talk.server_sends(my.ok(1))
            talk.take_client()
            talk.expect_outcome("OK", rows=0)


@pytest.mark.parametrize(("status", "statement"), [(0x0200, b"SELECT 'a\\'"), (0x8000, b'SELECT "a"')])
def test_a_mode_that_changes_quotes_leaves_statements_unknown(status: int, statement: bytes) -> None:
    """NO_BACKSLASH_ESCAPES and ANSI_QUOTES, of which the server tells: what has such characters is not understood."""
    with logged_in() as talk:
        talk.client_sends(my.command(0x0E))
        talk.take_upstream()
        talk.server_sends(my.ok(1, status=status | 2))
        talk.take_client()
        talk.client_sends(my.query(statement))
        assert talk.expect_request("Query").facts["operation"] == "unknown"
        talk.take_upstream()
        talk.server_sends(my.result(b"a", names=(b"a",)))  # by its last word, the mode is as usual
        talk.take_client()
        talk.expect_outcome("OK", rows=1)
        talk.client_sends(my.query(b'SELECT "a"'))
        assert talk.expect_request("Query").facts["operation"] == "read"
        talk.take_upstream()
