"""HPACK both ways, compared with the hpack library's own encoder and decoder."""

from __future__ import annotations

import hpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enforcer.errors import ProtocolError
from enforcer.flow import Side
from enforcer.protocols.http2.compression import TABLE_LIMIT, Block, Decoder, Encoder

NAMES = st.sampled_from([b":path", b":method", b"cookie", b"x-a", b"x-b", b"content-type", b"date"]) | st.binary(
    max_size=9
)
VALUES = st.sampled_from([b"GET", b"/", b"", b"a", b"text/html", b"v" * 3000]) | st.binary(max_size=20)
BLOCKS = st.lists(st.lists(st.tuples(NAMES, VALUES), max_size=6), min_size=1, max_size=6)
SIZES = st.sampled_from([None, None, None, 0, 50, 100, 1000, 4096])


@settings(max_examples=40, deadline=None)
@given(blocks=BLOCKS, huffman=st.booleans(), sizes=st.lists(SIZES, min_size=6, max_size=6))
def test_what_the_library_encodes_is_read(
    blocks: list[list[tuple[bytes, bytes]]], huffman: bool, sizes: list[int | None]
) -> None:
    """Block after block, with tables of changing size, the same fields come out; also of the same block twice."""
    encoder, decoder = hpack.Encoder(), Decoder(Side.CLIENT)
    for block, size in zip(blocks, sizes, strict=False):
        if size is not None:
            encoder.header_table_size = size
        coded = encoder.encode(block, huffman=huffman)
        assert decoder.decode(coded) == block
        again = encoder.encode(block, huffman=huffman)
        assert decoder.decode(again) == block


@settings(max_examples=40, deadline=None)
@given(blocks=BLOCKS, sizes=st.lists(SIZES, min_size=6, max_size=6), secret=st.booleans())
def test_what_is_encoded_the_library_reads(
    blocks: list[list[tuple[bytes, bytes]]], sizes: list[int | None], secret: bool
) -> None:
    """Three times each, so that fields enter the table and are referred to; with tables of the peer's size."""
    encoder, decoder = Encoder(), hpack.Decoder()
    never = frozenset({b"cookie"}) if secret else frozenset()
    for block, size in zip(blocks, sizes, strict=False):
        if size is not None:
            encoder.resize(size)
            decoder.max_allowed_table_size = TABLE_LIMIT
        kept = Block()
        for _ in range(4):
            fields = decoder.decode(kept.encode(encoder, block, never), raw=True)
            assert [tuple(field) for field in fields] == block
            assert all(not field.indexable for field in fields if field[0] in never and field[1])


@given(data=st.lists(st.binary(max_size=60), max_size=6))
def test_any_block(data: list[bytes]) -> None:
    """Any bytes are fields or a ProtocolError, and where the library reads fields they are the same."""
    ours, theirs = Decoder(Side.SERVER), hpack.Decoder()
    for block in data:
        try:
            fields = ours.decode(block)
        except ProtocolError:
            return
        try:
            expected = [tuple(field) for field in theirs.decode(block, raw=True)]
        except hpack.HPACKError:
            return
        assert fields == expected


def test_a_repeated_block_is_read_once() -> None:
    """The very same list comes back while the table is what it was, and not after it changed."""
    encoder, decoder = hpack.Encoder(), Decoder(Side.CLIENT)
    encoder.encode([(b"x-a", b"1")])
    first = decoder.decode(hpack.Encoder().encode([(b"x-a", b"1")]))
    coded = encoder.encode([(b"x-a", b"1")])
    once, twice = decoder.decode(coded), decoder.decode(coded)
    assert first == once
    assert once is twice
    decoder.decode(b"\x40\x01y\x012")  # y: 2 enters the table, and index 62 is another field now
    assert decoder.decode(coded) == [(b"y", b"2")]


def test_values_that_never_repeat_leave_the_table_alone() -> None:
    """A path that is always another one does not push out what comes every time."""
    encoder = Encoder()
    for number in range(500):
        block = encoder.encode([(b":path", b"/orders/%d" % number), (b"user-agent", b"a client"), (b"x-tenant", b"7")])
    assert len(block) < 20
    assert encoder.version <= 2


@pytest.mark.parametrize(
    "block", [b"\x80", b"\xff", b"\x40", b"\x40\x01", b"\x00\x81\xff\x00", b"\x82\x20", b"\x3f\xe1\x20"]
)
def test_damaged_blocks(block: bytes) -> None:
    """Index 0, numbers and texts without end, Huffman padding, sizes out of place or beyond ours."""
    with pytest.raises(ProtocolError):
        Decoder(Side.CLIENT).decode(block)
