"""Redis, dialogue by dialogue: places of refusals, transactions, subscriptions, names of values, limits."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enforcer.errors import LimitExceeded
from enforcer.flow import Side
from enforcer.protocols.base import Probe, Request, Rows
from enforcer.protocols.redis import PROTOCOL, conversation
from enforcer.protocols.redis.client import MAX_AHEAD, encode
from enforcer.protocols.redis.commands import command_of
from enforcer.protocols.redis.server import MAX_DEPTH, MAX_HELD
from enforcer.protocols.redis.texts import TEXT_LIMIT, describe
from enforcer.verdict import Denial
from tests.conversation import DENIAL, Conversation

OK = b"+OK\r\n"
REFUSED = (
    b"-NOPERM egress to 8.8.8.8:80 denied: rule eu-only/everything-else forbids region US (region US (8.8.8.0/24), "
    b"rule eu-only/everything-else, session 0a1b); ask this host's operator; 'enforcer explain 8.8.8.8:80' shows every "
    b"rule tried\r\n"
)


def command(*words: str | bytes) -> bytes:
    return encode([word.encode() if isinstance(word, str) else word for word in words])


def forbidden(request: Request) -> Denial | None:
    return DENIAL if "forbidden" in request.text or request.fault else None


def same(rows: Rows) -> list[bytes | None]:
    return rows.values


@pytest.mark.parametrize(
    ("data", "answer"),
    [
        (b"*1\r\n$4\r\nPING\r\n", Probe.YES),
        (b"*3\r\n$3\r\n", Probe.YES),
        (b"*", Probe.MORE),
        (b"*12\r\n$", Probe.MORE),
        (b"*0\r\n", Probe.NO),
        (b"PING\r\n", Probe.NO),
        (b"*1\n$4\n", Probe.NO),
        (b"*1\r\n:4\r\n", Probe.NO),
    ],
)
def test_first_bytes(data: bytes, answer: Probe) -> None:
    """An array of bulk strings is Redis; a line that somebody typed is not, nor what only resembles one."""
    assert PROTOCOL.probe(data) is answer


def test_refusals_stand_where_their_commands_stood() -> None:
    """Between the replies of a pipeline, also while one of them is only half there, and at once where none is due."""
    with Conversation(PROTOCOL.inspector(), forbidden) as talk:
        talk.client_sends(command("GET", "a") + command("GET", "forbidden") + command("GET", "b"))
        talk.expect_request("GET", "GET a", command="GET", table="a", database="0", user="default")
        talk.expect_request("GET", "GET forbidden")
        talk.expect_request("GET", "GET b")
        talk.expect_upstream(command("GET", "a") + command("GET", "b"))
        talk.server_sends(b"$3\r\nxy")
        talk.server_sends(b"z\r\n$1")
        talk.expect_client(b"$3\r\nxyz\r\n" + REFUSED)
        talk.expect_outcome("value", 1)
        talk.client_sends(command("GET", "forbidden"))
        talk.expect_request("GET")
        talk.server_sends(b"\r\nb\r\n")
        talk.expect_client(b"$1\r\nb\r\n" + REFUSED)
        talk.expect_outcome("value", 1)
        talk.client_sends(command("GET", "forbidden"))
        talk.expect_request("GET")
        talk.expect_client(REFUSED)


def test_nothing_is_pushed_past_a_mask() -> None:
    """What a server pushes before the first masked reply is masked as what it owes."""
    seen: list[tuple[str, ...]] = []

    def note(rows: Rows) -> list[bytes | None]:
        seen.append(rows.columns)
        return rows.values

    pushed = b">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nm\r\n"
    with Conversation(PROTOCOL.inspector(), mask_rows=note) as talk:
        talk.client_sends(command("PING"))
        talk.server_sends(pushed + b"+PONG\r\n" + pushed)
        talk.expect_client(pushed + b"+PONG\r\n" + pushed)
        talk.take_upstream()
        talk.requests.clear()
        talk.outcomes.clear()
    assert seen == [("message", "c")] * 2


def test_a_refused_exec_discards() -> None:
    """The server's transaction must not wait for another EXEC: it gets DISCARD, and the client our refusal."""
    with Conversation(PROTOCOL.inspector(), lambda one: DENIAL if one.operation == "EXEC" else None) as talk:
        talk.client_sends(command("MULTI") + command("SET", "a", "1") + command("EXEC"))
        for name in ("MULTI", "SET", "EXEC"):
            talk.expect_request(name)
        talk.expect_upstream(command("MULTI") + command("SET", "a", "1") + command("DISCARD"))
        talk.server_sends(OK + b"+QUEUED\r\n" + OK)
        talk.expect_client(OK + b"+QUEUED\r\n" + REFUSED)
        talk.expect_outcome("OK")
        talk.expect_outcome("QUEUED")


def test_a_transaction_after_an_aborted_one_is_carried_out() -> None:
    """A refused command spoils its own transaction, not the next."""
    with Conversation(PROTOCOL.inspector(), forbidden) as talk:
        talk.client_sends(
            command("MULTI") + command("GET", "forbidden") + command("EXEC") + command("MULTI") + command("EXEC")
        )
        for name in ("MULTI", "GET", "EXEC", "MULTI", "EXEC"):
            talk.expect_request(name)
        talk.expect_upstream(command("MULTI") + command("DISCARD") + command("MULTI") + command("EXEC"))
        talk.server_sends(OK + OK + OK + b"*0\r\n")
        aborted = b"-EXECABORT Transaction discarded because of previous errors.\r\n"
        talk.expect_client(OK + REFUSED + aborted + OK + b"*0\r\n")
        talk.expect_outcome("OK")
        talk.expect_outcome("EXECABORT", failed=True)
        talk.expect_outcome("OK")
        talk.expect_outcome("array", 0)


NAMED = [
    (command("GET", "k"), b"$1\r\nv\r\n", {"k": b"v"}),
    (command("HGET", "k", "f"), b"$1\r\nv\r\n", {"k.f": b"v"}),
    (command("HMGET", "k", "f", "g"), b"*2\r\n$1\r\nv\r\n$1\r\nw\r\n", {"k.f": b"v", "k.g": b"w"}),
    (command("HGETALL", "k"), b"*2\r\n$1\r\nf\r\n$1\r\nv\r\n", {"k": b"f", "k.f": b"v"}),
    (command("HGETALL", "k"), b"%1\r\n$1\r\nf\r\n$1\r\nv\r\n", {"k": b"f", "k.f": b"v"}),
    (command("HSCAN", "k", "0"), b"*2\r\n$1\r\n0\r\n*2\r\n$1\r\nf\r\n$1\r\nv\r\n", {"k": b"f", "k.f": b"v"}),
    (command("MGET", "k", "l"), b"*2\r\n$1\r\nv\r\n$1\r\nw\r\n", {"k": b"v", "l": b"w"}),
    (
        command("XRANGE", "k", "-", "+"),
        b"*1\r\n*2\r\n$3\r\n1-1\r\n*2\r\n$1\r\nf\r\n$1\r\nv\r\n",
        {"k": b"f", "k.f": b"v"},
    ),
    (command("BLPOP", "k", "l", "0"), b"*2\r\n$1\r\nl\r\n$1\r\nv\r\n", {"blpop": b"l", "l": b"v"}),
    (command("LRANGE", "k", "0", "-1"), b"*1\r\n$1\r\nv\r\n", {"k": b"v"}),
    (command("SUNION", "k", "l"), b"~1\r\n$1\r\nv\r\n", {"": b"v"}),
    (command("EVAL", "return 1", "0"), b":17\r\n", {"": b"17"}),
    (command("HVALS", "k"), b"*1\r\n$1\r\nv\r\n", {"": b"v"}),
    (command("INCR", "k"), b":17\r\n", {"k": b"17"}),
    (command("ZSCORE", "k", "m"), b",1.5\r\n", {"k": b"1.5"}),
    (command("GET", "k"), b"|1\r\n+a\r\n+b\r\n=5\r\ntxt:v\r\n", {"": b"b", "k": b"v"}),
    (command("KEYS", "*"), b"*1\r\n$1\r\nk\r\n", {"keys": b"k"}),
    (command("NOSUCH"), b"*1\r\n$1\r\nv\r\n", {"": b"v"}),
]


@pytest.mark.parametrize(("asked", "said", "names"), NAMED)
def test_values_are_called_by_their_keys_and_fields(asked: bytes, said: bytes, names: dict[str, bytes]) -> None:
    """Each value has the name that a rule on columns finds it by, or none, which every such rule hides."""
    found: dict[str, bytes | None] = {}

    def note(rows: Rows) -> list[bytes | None]:
        found.update(zip(rows.columns, rows.values, strict=True))
        return rows.values

    with Conversation(PROTOCOL.inspector(), mask_rows=note) as talk:
        talk.client_sends(asked)
        talk.server_sends(said)
        assert found == names
        talk.expect_client(said)
        talk.take_upstream()
        talk.requests.clear()
        talk.outcomes.clear()


def test_hidden_values_keep_their_types_or_are_null() -> None:
    """Strings, verbatim and simple ones stay so; numbers become the null of the version that is spoken."""
    hide = {b"v": b"*", b"17": None, b"w": None}
    for resp3, nothing in ((False, b"$-1\r\n"), (True, b"_\r\n")):
        with Conversation(
            PROTOCOL.inspector(), mask_rows=lambda rows: [hide.get(one, one) for one in rows.values]
        ) as talk:
            talk.client_sends(command("HELLO", "3" if resp3 else "2") + command("EVAL", "x", "0"))
            talk.server_sends(
                (b"%0\r\n" if resp3 else b"*0\r\n") + b"*5\r\n$1\r\nv\r\n:17\r\n+v\r\n=5\r\ntxt:v\r\n$1\r\nw\r\n"
            )
            got = talk.take_client()
            assert got[4:] == b"*5\r\n$1\r\n*\r\n" + nothing + b"+*\r\n=5\r\ntxt:*\r\n" + nothing
            talk.take_upstream()
            talk.requests.clear()
            talk.outcomes.clear()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["AUTH", "secret"], "AUTH (hidden)"),
        (["auth", "ada", "secret"], "auth ada (hidden)"),
        (["HELLO", "3", "AUTH", "ada", "secret", "SETNAME", "x"], "HELLO 3 AUTH ada (hidden) SETNAME x"),
        (["ACL", "SETUSER", "ada", "on", ">secret", "+get"], "ACL SETUSER ada on (hidden) +get"),
        (["CONFIG", "SET", "maxmemory", "1", "requirepass", "secret"], "CONFIG SET maxmemory 1 requirepass (hidden)"),
        (["MIGRATE", "h", "1", "", "0", "1", "AUTH", "secret"], 'MIGRATE h 1 "" 0 1 AUTH (hidden)'),
        (["MIGRATE", "h", "1", "k", "0", "1", "AUTH2", "ada", "secret"], "MIGRATE h 1 k 0 1 AUTH2 ada (hidden)"),
        (["SET", "a b", 'q"\n', "Grüße"], 'SET "a b" "q\\"\\n" Grüße'),
    ],
)
def test_what_is_recorded(words: list[str], text: str) -> None:
    """A command as redis-cli would take it, without the passwords."""
    args = [word.encode() for word in words]
    assert describe(command_of(args), args) == text


def test_binary_is_escaped_and_long_texts_end() -> None:
    """Bytes that are no text are escapes; what is long ends within the limit, and not in the middle of a value."""
    args = [b"SET", b"\x00\xff", b"4111111111111111 " * 1000]
    text = describe(command_of(args), args)
    assert text.startswith('SET "\\x00\\xff" "4111')
    assert len(text) <= TEXT_LIMIT + 1
    assert text.endswith("…")


@pytest.mark.parametrize(
    ("words", "facts"),
    [
        ("GET k", {"operation": "read", "table": "k", "command": "GET"}),
        ("config set a b", {"operation": "admin", "table": "*", "command": "CONFIG SET"}),
        ("EVAL x 1 k", {"operation": "unknown", "table": "k, *"}),
        ("JSON.GET k", {"operation": "unknown", "table": "*"}),
        ("MSET a 1 b 2", {"operation": "write", "table": "a, b"}),
        ("MOVE k 3", {"operation": "write", "table": "k", "database": "0, 3"}),
        ("SORT k BY w_*", {"operation": "write", "table": "*"}),
        ("XREAD COUNT 1 STREAMS a b 0 0", {"operation": "read", "table": "a, b"}),
        ("XREAD STREAMS STREAMS a 0 0", {"operation": "read", "table": "*"}),
        ("ZUNIONSTORE d 9 a", {"operation": "write", "table": "*"}),
        ("KEYS *", {"operation": "read", "table": "*"}),
    ],
)
def test_facts(words: str, facts: dict[str, str]) -> None:
    """Operation and keys of a command; a star where it may reach keys that it does not name."""
    with Conversation(PROTOCOL.inspector()) as talk:
        talk.client_sends(command(*words.split()))
        (request,) = talk.requests
        assert {name: request.facts.get(name) for name in facts} == facts
        talk.requests.clear()
        talk.take_upstream()


def test_database_and_user_are_what_they_may_be() -> None:
    """Until SELECT and AUTH are answered both values count, afterwards the one that holds; the commands themselves say
    what they ask for."""
    with Conversation(PROTOCOL.inspector()) as talk:
        talk.client_sends(command("AUTH", "ada", "pw") + command("SELECT", "3") + command("GET", "k"))
        assert talk.expect_request("AUTH").facts == {"user": "ada"}
        assert talk.expect_request("SELECT").facts == {"database": "3"}
        talk.expect_request("GET", database="0, 3", user="ada, default")
        talk.server_sends(OK + OK + b"$-1\r\n")
        talk.client_sends(command("GET", "k") + command("SELECT", "99"))
        talk.expect_request("GET", database="3", user="ada")
        talk.expect_request("SELECT")
        talk.server_sends(b"$-1\r\n-ERR DB index is out of range\r\n")
        talk.client_sends(command("GET", "k"))
        talk.expect_request("GET", database="3")
        talk.take_client()
        talk.take_upstream()
        talk.outcomes.clear()


@pytest.mark.parametrize(
    ("words", "tunnel"),
    [
        ("REPLICAOF 10.0.0.1 6379", ("10.0.0.1", 6379)),
        ("SLAVEOF no one", None),
        ("MIGRATE 10.0.0.1 6379 k 0 100", ("10.0.0.1", 6379)),
        ("CLUSTER MEET 10.0.0.1 6379", ("10.0.0.1", 6379)),
        ("FAILOVER TO 10.0.0.1 6379", ("10.0.0.1", 6379)),
        ("GET 10.0.0.1 6379", None),
    ],
)
def test_commands_that_make_the_server_connect_are_egress(words: str, tunnel: tuple[str, int] | None) -> None:
    """Where a command sends the server's data elsewhere, the request says where to, for policy to judge it as well."""
    with Conversation(PROTOCOL.inspector(), lambda _one: DENIAL) as talk:
        talk.client_sends(command(*words.split()))
        assert talk.requests.pop().tunnel == tunnel
        talk.take_client()


CLIENT_FAULTS = {
    b"PING\r\n": "inline",
    b"*0\r\n": "without a name",
    b"*-1\r\n": "plain number",
    b"*1\r\n:4\r\n": "inline",
    b"*1\r\n$-1\r\n": "plain number",
    b"*1\r\n$04\r\nPING\r\n": "plain number",
    b"*1\r\n$4\r\nPINGxx": "longer than it says",
    b"*1\r\n$1000000000\r\n": "over",
    b"*9999999\r\n": "over the limit",
    b"*" + b"1" * 100: "a line of over",
}
SERVER_FAULTS = {
    b"hello\r\n": "unknown type",
    b"$?\r\n": "streamed",
    b"$01\r\n": "plain number",
    b"*1\r\n>1\r\n": "pushed in the midst",
    b"$3\r\nabcd\r\n": "longer than it says",
    b"*1\r\n" * (MAX_DEPTH + 1): "nests",
    b"+" + b"x" * 70000: "a line of over",
    b"+a\r\n+b\r\n": "no command",
}


@pytest.mark.parametrize("sent", CLIENT_FAULTS)
def test_what_clients_must_not_send(sent: bytes) -> None:
    """It ends the flow in one line of words, however it is cut, and nothing of it goes upstream."""
    for step in (1, len(sent)):
        with Conversation(PROTOCOL.inspector()) as talk:
            for at in range(0, len(sent), step):
                talk.client_sends(sent[at : at + step])
            talk.expect_error(Side.CLIENT, CLIENT_FAULTS[sent])
            talk.expect_client(REFUSED)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("sent", SERVER_FAULTS)
def test_what_servers_must_not_send(sent: bytes, masked: bool) -> None:
    """It ends the flow; a client that has the beginning of a reply is told nothing in the middle of it."""
    with Conversation(PROTOCOL.inspector(), mask_rows=same if masked else None) as talk:
        talk.client_sends(command("GET", "k"))
        talk.expect_request("GET")
        talk.expect_upstream(command("GET", "k"))
        talk.server_sends(sent)
        talk.expect_error(Side.SERVER, SERVER_FAULTS[sent])
        talk.take_client()
        talk.outcomes.clear()


def test_values_too_long_to_mask_are_refused() -> None:
    """Of a value of a gigabyte that would have to be masked nothing is handed on, and its size is in the words."""
    with Conversation(PROTOCOL.inspector(), mask_rows=same) as talk:
        talk.client_sends(command("GET", "k"))
        talk.server_sends(b"$1000000000\r\nabc")
        talk.expect_error(Side.SERVER, f"limit of {MAX_HELD}")
        talk.expect_client(REFUSED)
        talk.take_upstream()
        talk.requests.clear()


def test_long_pipelines_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands that wait for replies are counted."""
    monkeypatch.setattr(conversation, "MAX_OUTSTANDING", 50)
    inspector = PROTOCOL.inspector()
    inspector.receive_data(Side.CLIENT, command("PING") * 51)
    for _ in range(50):
        request = inspector.next_event()
        assert isinstance(request, Request)
        inspector.allow(request, masked=False)
    last = inspector.next_event()
    assert isinstance(last, Request)
    with pytest.raises(LimitExceeded, match="wait for their replies"):
        inspector.allow(last, masked=False)


def test_bytes_ahead_are_bounded() -> None:
    """A client that sends on while a command is judged hits a limit."""
    inspector = PROTOCOL.inspector()
    inspector.receive_data(Side.CLIENT, command("PING"))
    assert isinstance(inspector.next_event(), Request)
    inspector.receive_data(Side.CLIENT, b"x" * (MAX_AHEAD + 1))
    with pytest.raises(LimitExceeded, match="while a command is judged"):
        inspector.next_event()


values = st.recursive(
    st.sampled_from(
        [b"$3\r\nabc\r\n", b"$-1\r\n", b":1\r\n", b"+OK\r\n", b"+text\r\n", b"_\r\n", b"#t\r\n", b",1.5\r\n"]
    )
    | st.binary(max_size=300).map(lambda data: b"$%d\r\n%b\r\n" % (len(data), data)),
    lambda inner: (
        st.lists(inner, max_size=5).map(lambda items: b"*%d\r\n" % len(items) + b"".join(items))
        | st.lists(inner, max_size=2).map(lambda items: b"%%%d\r\n" % len(items) + b"".join(one + one for one in items))
    ),
    max_leaves=30,
)


@settings(max_examples=40, deadline=None)
@given(replies=st.lists(values, min_size=1, max_size=6), data=st.data(), masked=st.booleans())
def test_no_cut_changes_anything(replies: list[bytes], data: st.DataObject, masked: bool) -> None:
    """Whatever the replies, however they are cut: every byte arrives, each command ends, refusals stand between."""
    said = b"".join(replies)
    how = same if masked else None
    with Conversation(PROTOCOL.inspector(), forbidden, mask_rows=how) as talk:
        for number, _ in enumerate(replies):
            talk.client_sends(command("EVAL", str(number), "0") + command("GET", "forbidden"))
        at = 0
        while at < len(said):
            size = data.draw(st.integers(1, 40))
            talk.server_sends(said[at : at + size])
            at += size
        talk.expect_client(b"".join(one + REFUSED for one in replies))
        assert [one.exchange for one in talk.outcomes] == list(range(1, 2 * len(replies), 2))
        talk.take_upstream()
        talk.requests.clear()
        talk.outcomes.clear()
