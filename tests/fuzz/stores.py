"""What Redis's and MongoDB's targets share: whatever is said, in whatever pieces, what goes on is what was judged and
what was said, and the pieces change nothing.

An input: one byte of options (masked or not), one that says how it is cut, then a dialogue (`<client>`, `<server>`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from enforcer.flow import Side
from enforcer.protocols.base import Protocol
from tests.conversation import Conversation
from tests.fuzz.target import cut, dialogue, options, written

MASKED = 1
Turns = list[tuple[Side, bytes]]


def play(protocol: Protocol, turns: Turns, step: int, flags: int) -> tuple[Conversation, bytes, bytes]:
    """The finished conversation, and all that went to server and client. Masks look at everything and hide nothing."""
    masks = {"mask_text": lambda text: text.data, "mask_rows": lambda rows: rows.values} if flags & MASKED else {}
    talk = Conversation(protocol.inspector(), quiet=True, **masks)  # type: ignore[arg-type]
    upstream = b""
    for side, data in turns:
        for piece in cut(data, step):
            (talk.client_sends if side is Side.CLIENT else talk.server_sends)(piece)
            if sent := talk.take_upstream():
                assert talk.requests, "bytes went upstream before the first verdict"
                upstream += sent
    return talk, upstream, talk.take_client()


def judged(protocol: Protocol, data: bytes) -> None:
    (flags, step), rest = options(data, 2)
    turns = dialogue(rest)
    talk, upstream, to_client = play(protocol, turns, step % 64, flags)
    assert upstream == b"".join(request.raw for request in talk.requests)
    assert len(talk.outcomes) <= len(talk.requests)
    if step % 64:
        again, same_upstream, same_client = play(protocol, turns, 0, flags)
        if not (talk.closed or again.closed):
            assert (same_upstream, same_client) == (upstream, to_client)
            assert [one.text for one in again.requests] == [one.text for one in talk.requests]


def seeded(dialogues: Iterable[Turns]) -> Iterator[bytes]:
    for turns in dialogues:
        for flags in (0, MASKED):
            for step in (0, 1, 7):
                yield bytes([flags, step]) + written(turns)
