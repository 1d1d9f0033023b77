"""Content codings: decoded and coded again at every cut, with limits against what grows out of proportion."""

from __future__ import annotations

import contextlib
import gzip
import tracemalloc
import zlib

import brotli
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from enforcer.protocols.codings import (
    MEMBER_LIMIT,
    PIECE_LIMIT,
    RATIO_FREE,
    CodingError,
    Decoder,
    Encoder,
    codings_of,
    readable,
)

TEXT = b'{"card": "4111 1111 1111 1111", "note": "' + bytes(range(35, 91)) * 40 + b'"}'


def bare_deflate(data: bytes) -> bytes:
    coder = zlib.compressobj(wbits=-15)
    return coder.compress(data) + coder.flush()


CODED = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "bare deflate": bare_deflate,
    "br": lambda data: brotli.compress(data, quality=5),
    "zstd": zstandard.compress,
}
READ = {
    "gzip": gzip.decompress,
    "deflate": zlib.decompress,
    "br": brotli.decompress,
    "zstd": lambda data: zstandard.ZstdDecompressor().decompressobj().decompress(data),
}


def decoded(coding: str, data: bytes, step: int = 0) -> bytes:
    decoder = Decoder((coding.removeprefix("bare "),))
    size = step or len(data) or 1
    pieces = [data[at : at + size] for at in range(0, len(data), size)] or [b""]
    return b"".join(decoder.feed(piece, index == len(pieces) - 1) for index, piece in enumerate(pieces))


@pytest.mark.parametrize("coding", CODED)
@pytest.mark.parametrize("step", [0, 1, 7, 1000])
def test_decoded_at_any_cut(coding: str, step: int) -> None:
    """What real encoders made is decoded, however it is cut."""
    assert decoded(coding, CODED[coding](TEXT), step) == TEXT


@pytest.mark.parametrize("coding", READ)
@given(pieces=st.lists(st.binary(max_size=300), max_size=6))
@settings(max_examples=30, deadline=None)
def test_coded_so_that_others_read_it(coding: str, pieces: list[bytes]) -> None:
    """What we code is what real decoders read, and each piece can be read before the next one has come."""
    encoder, reader, so_far = Encoder((coding,)), Decoder((coding,)), b""
    out = b""
    for piece in pieces:
        coded = encoder.feed(piece, False)
        so_far += reader.feed(coded, False)
        out += coded
        assert so_far == b"".join(pieces[: pieces.index(piece)]) + piece or pieces.count(piece) > 1
    out += encoder.feed(b"", True)
    assert (READ[coding](out) if out else b"") == b"".join(pieces)


@pytest.mark.parametrize("stack", [("gzip", "br"), ("br", "gzip"), ("deflate", "zstd", "gzip")])
def test_stacked(stack: tuple[str, ...]) -> None:
    """Codings on top of each other are undone from the last and done again in order."""
    coded = TEXT
    for coding in stack:
        coded = CODED[coding](coded)
    assert Decoder(stack).feed(coded, True) == TEXT
    again = Encoder(stack).feed(TEXT, True)
    for coding in reversed(stack):
        again = READ[coding](again)
    assert again == TEXT


@pytest.mark.parametrize("step", [0, 1, 5])
def test_members_and_frames(step: int) -> None:
    """Several gzip members or zstd frames are one body (RFC 1952 section 2.2, RFC 8878 section 3)."""
    assert decoded("gzip", gzip.compress(b"one") + gzip.compress(b"two"), step) == b"onetwo"
    skippable = b"\x50\x2a\x4d\x18\x03\x00\x00\x00abc"
    assert decoded("zstd", zstandard.compress(b"one") + skippable + zstandard.compress(b"two"), step) == b"onetwo"


@pytest.mark.parametrize("coding", CODED)
@pytest.mark.parametrize("step", [0, 1])
def test_cut_short(coding: str, step: int) -> None:
    """A body that ends before its coding does is refused."""
    for missing in (1, 4, len(CODED[coding](TEXT)) - 1):
        with pytest.raises(CodingError, match="ends too early"):
            decoded(coding, CODED[coding](TEXT)[:-missing], step)


@pytest.mark.parametrize("coding", CODED)
@pytest.mark.parametrize("step", [0, 1])
def test_bytes_after_the_end(coding: str, step: int) -> None:
    """What follows a coded body is refused: two readers would not agree on what it is."""
    with pytest.raises(CodingError, match="after"):
        decoded(coding, CODED[coding](TEXT) + b"hello", step)


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd"])
def test_damaged(coding: str) -> None:
    """Bytes that are no such coding are refused."""
    with pytest.raises(CodingError):
        decoded(coding, b'{"not": "coded"}' * 10)


@given(data=st.binary(max_size=200), coding=st.sampled_from(sorted(CODED)), step=st.integers(1, 50))
@settings(max_examples=100, deadline=None)
def test_any_bytes(data: bytes, coding: str, step: int) -> None:
    """Any bytes raise CodingError or are decoded."""
    with contextlib.suppress(CodingError):
        decoded(coding, data, step)


def test_wrong_checksum() -> None:
    """A gzip body whose checksum does not fit is refused."""
    coded = bytearray(gzip.compress(TEXT))
    coded[-6] ^= 1
    with pytest.raises(CodingError, match="damaged"):
        decoded("gzip", bytes(coded))


@pytest.mark.parametrize("coding", CODED)
def test_bombs(coding: str) -> None:
    """What grows out of proportion is refused before it fills the memory; what is small passes at any ratio."""
    assert decoded(coding, CODED[coding](b"\0" * RATIO_FREE)) == b"\0" * RATIO_FREE
    bomb = CODED[coding](b"\0" * (16 * RATIO_FREE))
    tracemalloc.start()
    try:
        with pytest.raises(CodingError, match="grows"):
            decoded(coding, bomb)
        assert tracemalloc.get_traced_memory()[1] < PIECE_LIMIT
    finally:
        tracemalloc.stop()


def test_layered_bomb() -> None:
    """The ratio counts from the outermost coding to the innermost."""
    inner = gzip.compress(b"\0" * (4 * RATIO_FREE))
    with pytest.raises(CodingError, match="grows"):
        Decoder(("gzip", "gzip")).feed(gzip.compress(inner), True)


def test_too_many_members() -> None:
    """Each member costs a decoder: they are counted."""
    with pytest.raises(CodingError, match="members"):
        decoded("gzip", gzip.compress(b"") * (MEMBER_LIMIT + 1))


@pytest.mark.parametrize(
    ("values", "codings"),
    [
        ([], ()),
        ([b"identity"], ()),
        ([b"gzip"], ("gzip",)),
        ([b"X-Gzip, BR"], ("gzip", "br")),
        ([b"gzip", b"zstd"], ("gzip", "zstd")),
        ([b"gzip, identity,"], ("gzip",)),
        ([b"compress"], None),
        ([b"gzip, aes128gcm"], None),
        ([b"gzip, gzip, gzip, gzip"], None),
        ([b"\xff"], None),
    ],
)
def test_codings_of(values: list[bytes], codings: tuple[str, ...] | None) -> None:
    """Content-Encoding is read as RFC 9110 section 8.4.1 has it; None says that it cannot be undone here."""
    assert codings_of(values) == codings


@pytest.mark.parametrize(
    ("asked", "passed"),
    [
        ([], b"identity"),
        ([b"gzip, deflate, br, zstd"], b"gzip, deflate, br, zstd"),
        ([b"gzip;q=0.8, dcb, *;q=0.1", b"identity;q=0"], b"gzip;q=0.8, identity;q=0"),
        ([b"compress"], b"identity"),
        ([b"*"], b"identity"),
        ([b""], b"identity"),
    ],
)
def test_readable(asked: list[bytes], passed: bytes) -> None:
    """A server is asked for no coding but those that are read here."""
    assert readable(asked) == passed
