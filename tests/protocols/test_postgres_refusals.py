"""Denials in PostgreSQL's own words, which the session survives."""

from __future__ import annotations

import pytest

from enforcer.errors import ProtocolError
from enforcer.protocols.base import Outcome, Request
from enforcer.protocols.postgres.inspector import ABORT_BATCH, PostgresInspector
from tests.protocols import wire_postgres as wire
from tests.protocols.wire_postgres import (
    BOUND,
    FLUSH,
    PARSED,
    SYNC,
    C,
    S,
    bind,
    columns,
    complete,
    denied,
    describe,
    execute,
    opened,
    parse,
    query,
    ready,
    row,
)


def marked(request: Request) -> bool:
    return "DENY" in request.text or "DENY" in request.params


def talking() -> wire.Talk:
    return opened(PostgresInspector(), deny=marked)


@pytest.mark.parametrize("status", ["I", "T", "E"])
def test_a_refused_query_keeps_the_transaction_status_the_server_last_said(status: str) -> None:
    """ERROR 42501, then ReadyForQuery as the server left it: inside a transaction it stays inside."""
    talk = talking()
    talk.feed(C, query("begin"))
    talk.feed(S, complete("BEGIN") + ready(status))
    talk.sent()
    talk.feed(C, query("DENY"))
    assert talk.sent() == (b"", denied() + ready(status))
    assert not talk.closed


def test_a_refused_query_waits_its_turn_behind_earlier_answers() -> None:
    """The client must not take the refusal for the answer to the query before."""
    talk = talking()
    talk.feed(C, query("begin") + query("DENY") + query("select 1"))
    assert talk.sent() == (query("begin") + query("select 1"), b"")
    talk.feed(S, complete("BEGIN") + ready("T"))
    assert talk.sent()[1] == complete("BEGIN") + ready("T") + denied() + ready("T")


def test_a_refused_parse_discards_its_batch_and_answers_its_sync() -> None:
    """Nothing of the batch went upstream, so the error and ReadyForQuery are ours and the server sees nothing."""
    talk = talking()
    talk.feed(C, parse("DENY") + bind() + describe("P") + execute() + SYNC)
    assert talk.sent() == (b"", denied() + ready("I"))
    talk.feed(C, query("select 1"))
    assert talk.upstream == query("select 1")


def test_a_refusal_within_a_batch_aborts_it_on_the_server() -> None:
    """The server fails the batch at the refused statement, so that nothing before it is committed; the client
    gets the earlier answers, our error in place of the server's, and the server's own transaction status."""
    talk = talking()
    first, second = parse("insert") + bind() + execute(), parse("DENY") + bind() + execute()
    talk.feed(C, first + second + SYNC)
    assert talk.sent() == (first + ABORT_BATCH + FLUSH + SYNC, b"")
    answers = PARSED + BOUND + complete("INSERT 0 1")
    talk.feed(S, answers + wire.error("34000") + ready("E"))
    assert talk.sent()[1] == answers + denied() + ready("E")
    assert talk.of(Outcome) == [Outcome(2, "ParseComplete"), Outcome(3, "INSERT", 1)]


def test_a_refused_bind_is_judged_by_its_parameters() -> None:
    """A prepared statement may be allowed and one execution of it refused."""
    talk = talking()
    talk.feed(C, parse("select $1", "s") + SYNC)
    talk.feed(S, PARSED + ready())
    talk.sent()
    talk.feed(C, bind(b"DENY", statement="s") + execute() + SYNC)
    assert talk.sent() == (b"", denied() + ready())
    talk.feed(C, bind(b"fine", statement="s") + execute() + SYNC)
    assert talk.upstream == bind(b"fine", statement="s") + execute() + SYNC


def test_a_refusal_before_anything_was_executed_keeps_the_transaction() -> None:
    """Parse allowed and Bind refused in one batch, inside a transaction: there is nothing to roll back, so the
    error takes its turn behind ParseComplete and the transaction goes on."""
    talk = talking()
    talk.feed(C, query("begin"))
    talk.feed(S, complete("BEGIN") + ready("T"))
    talk.sent()
    talk.feed(C, parse("select $1") + bind(b"DENY") + describe("P") + execute() + SYNC)
    assert talk.sent() == (parse("select $1") + FLUSH + SYNC, b"")
    talk.feed(S, PARSED)
    assert talk.sent()[1] == PARSED + denied()
    talk.feed(S, ready("T"))
    assert talk.sent()[1] == ready("T")


def test_a_batch_refused_behind_an_answered_one_waits_its_turn() -> None:
    """Two pipelined batches: the second one's refusal follows the first one's ReadyForQuery."""
    talk = talking()
    talk.feed(C, parse("a") + SYNC + parse("DENY") + SYNC + parse("b") + SYNC)
    assert talk.sent() == (parse("a") + SYNC + parse("b") + SYNC, b"")
    talk.feed(S, PARSED + ready("T") + PARSED)
    talk.feed(S, ready("T"))
    assert talk.sent()[1] == PARSED + ready("T") + denied() + ready("T") + PARSED + ready("T")


def test_an_earlier_error_of_the_server_takes_the_refusals_place() -> None:
    """In a batch only the first error counts, as PostgreSQL has it."""
    talk = talking()
    talk.feed(C, parse("broken") + parse("DENY") + SYNC)
    talk.sent()
    talk.feed(S, wire.error("42601") + ready())
    assert talk.sent()[1] == wire.error("42601") + ready()


def test_a_refusal_after_the_batch_already_failed_says_nothing() -> None:
    """The server ignores everything until Sync; so do we."""
    talk = talking()
    talk.feed(C, parse("broken"))
    talk.feed(S, wire.error("42601"))
    talk.sent()
    talk.feed(C, parse("DENY") + bind() + SYNC)
    talk.feed(S, ready())
    assert talk.sent() == (SYNC, ready())


def test_a_simple_query_refused_inside_an_open_batch_aborts_and_ends_it() -> None:
    """A Query without the Sync before it is legal; its refusal fails the batch and returns to ready."""
    talk = talking()
    talk.feed(C, parse("insert") + query("DENY"))
    assert talk.sent()[0] == parse("insert") + ABORT_BATCH + SYNC
    talk.feed(S, PARSED + wire.error("34000") + ready())
    assert talk.sent()[1] == PARSED + denied() + ready()


def test_a_server_that_does_not_fail_the_aborted_batch_is_cut_off() -> None:
    """If the portal we described exists after all, the answer is a protocol error, never handed on."""
    talk = talking()
    talk.feed(C, parse("insert") + bind() + execute() + parse("DENY") + SYNC)
    with pytest.raises(ProtocolError, match="while awaiting refusal"):
        talk.feed(S, PARSED + BOUND + complete("INSERT 0 1") + wire.NO_DATA)


def test_a_denial_in_mid_answer_is_readable_unless_a_message_is_half_sent() -> None:
    """FATAL follows whole messages; inside a long row that passes in pieces nothing can be said."""
    talk = talking()
    talk.feed(C, query("select"))
    talk.feed(S, columns("a") + row(b"x"))
    assert talk.inspector.refuse(None, wire.DENIAL).to_client == denied("FATAL")
    talk = talking()
    talk.feed(C, query("select"))
    talk.feed(S, columns("a") + row(b"x" * 100_000)[:90_000])
    assert talk.inspector.refuse(None, wire.DENIAL).to_client == b""
