"""The opaque protocol: asked once, then all or nothing."""

from __future__ import annotations

import pytest

from enforcer.errors import LimitExceeded
from enforcer.flow import Side
from enforcer.protocols.opaque import PENDING_LIMIT, PROTOCOL
from tests.conversation import DENIAL, Conversation


def test_asks_before_any_byte() -> None:
    """The verdict is asked for before either side has said a word: in some protocols the server begins."""
    request = PROTOCOL.inspector().next_event()
    assert request is not None
    assert (getattr(request, "operation", None), getattr(request, "raw", None)) == ("connect", b"")


def test_passes_all_bytes_of_both_sides() -> None:
    """Once allowed, every byte passes, and both ends closing is the outcome."""
    with Conversation(PROTOCOL.inspector()) as talk:
        talk.client_sends(b"\x16\x03\x01")
        talk.expect_request("connect", "")
        talk.expect_upstream(b"\x16\x03\x01")
        talk.server_sends(b"\x15\x03")
        talk.expect_client(b"\x15\x03")
        talk.client_closes()
        talk.server_sends(b"late")
        talk.expect_client(b"late")
        talk.server_closes()
        talk.expect_outcome("closed")


def test_refused_without_a_word() -> None:
    """A refusal has no words in a protocol nobody knows; nothing passes."""
    with Conversation(PROTOCOL.inspector(), decide=lambda _: DENIAL) as talk:
        talk.client_sends(b"secret")
        talk.expect_request("connect")
        talk.expect_upstream(b"")
        talk.expect_client(b"")
        assert talk.closed


def test_cannot_be_masked() -> None:
    """Where a rule masks, the server's first byte ends the flow instead of passing unread."""
    with Conversation(PROTOCOL.inspector(), mask_text=lambda text: text.data) as talk:
        talk.client_sends(b"x")
        talk.expect_request("connect")
        talk.expect_upstream(b"x")
        talk.server_sends(b"4111 1111 1111 1111")
        talk.expect_client(b"")
        assert talk.closed


def test_bytes_before_the_verdict_are_bounded() -> None:
    """What piles up before the verdict has a limit."""
    inspector = PROTOCOL.inspector()
    inspector.next_event()
    inspector.receive_data(Side.CLIENT, b"x" * PENDING_LIMIT)
    with pytest.raises(LimitExceeded):
        inspector.receive_data(Side.CLIENT, b"x")
