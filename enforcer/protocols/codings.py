"""Step 4 of 6, inspect: content codings, undone to read a body and done again afterwards, piece by piece.

Gets the bytes of a coded body (RFC 9110 section 8.4) as they come; hands on what they stand for, and codes what has
become of that in the same way, flushed after each piece, so that nothing waits for the end. A body that grows out of
all proportion, is cut short, or goes on after its end, is refused. Never touches heads or framing.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from typing import Protocol

import brotli
import zstandard

from enforcer.errors import EnforcerError

# How many times larger than it came a body may become. Apache's DeflateInflateRatioLimit is 200, Envoy's
# max_inflate_ratio 100; JSON and logs shrink by 5 to 50.
RATIO_LIMIT = 200
# Decoded bytes from which on the ratio counts: small answers of one repeated character are no attack.
RATIO_FREE = 1 << 20
# Decoded bytes of one piece, which is one read (uvloop: 256 KiB): what is in memory at once, whatever the ratio.
PIECE_LIMIT = 64 << 20
# Codings on top of each other. One is usual; two are a misconfigured cache.
STACK_LIMIT = 3
# Members of one gzip body and frames of one zstd body: `cat a.gz b.gz`, and tools that compress in blocks (bgzip).
MEMBER_LIMIT = 4096

# Decoded bytes taken out of a decoder at once, and coded bytes that zstd gets at once: it cannot be told to stop, and
# its smallest block of 4 bytes may stand for 128 KiB (RFC 8878 section 3.1.1.2).
_OUT = 256 * 1024
_ZSTD_IN = 512
# RFC 9659: what a decoder of the content coding has to support, and no encoder may exceed.
_ZSTD_WINDOW = 8 << 20
_GZIP_MAGIC = b"\x1f\x8b"
_GZIP, _ZLIB, _RAW = 31, 15, -15
# Fast enough for the path of every answer; what a proxy's users pay for is time, not bytes.
_ZLIB_LEVEL, _BROTLI_QUALITY, _ZSTD_LEVEL = 4, 4, 3
# 256 KiB instead of 4 MiB, of which many streams may be open.
_BROTLI_WINDOW = 18

# RFC 9110 section 8.4.1.3.
_OTHER_NAMES = {"x-gzip": "gzip"}


class CodingError(EnforcerError):
    """A coded body that cannot be read, or must not be. The message never quotes it."""


class _Layer(Protocol):
    def feed(self, data: bytes) -> Iterator[bytes]: ...

    def finish(self) -> None: ...


class _Zlib:
    """gzip (RFC 1952, with all its members) or deflate: zlib (RFC 1950), or the bare RFC 1951 that old servers send."""

    def __init__(self, *, gzip: bool) -> None:
        self._gzip = gzip
        self._start = b""
        self._members = 0
        self._decoder: zlib._Decompress | None = None

    def feed(self, data: bytes) -> Iterator[bytes]:
        while data:
            if self._decoder is None:
                data, self._start = self._start + data, b""
                if len(data) < 2:
                    self._start = data
                    return
                self._decoder = self._begin(data)
            decoder = self._decoder
            try:
                while True:
                    out = decoder.decompress(data, _OUT)
                    if out:
                        yield out
                    data = decoder.unconsumed_tail
                    if decoder.eof or (not data and len(out) < _OUT):
                        break
            except zlib.error as error:
                raise CodingError("a compressed body is damaged") from error
            data = decoder.unused_data
            if decoder.eof:
                self._decoder = None

    def _begin(self, data: bytes) -> zlib._Decompress:
        self._members += 1
        if self._members > MEMBER_LIMIT:
            raise CodingError(f"a compressed body of more than {MEMBER_LIMIT} members")
        if self._gzip:
            if data[:2] != _GZIP_MAGIC:
                raise CodingError(
                    "a body is not compressed as it says" if self._members == 1 else "bytes after a compressed body"
                )
            return zlib.decompressobj(_GZIP)
        if self._members > 1:
            raise CodingError("bytes after a compressed body")
        header = (data[0] << 8) + data[1]
        return zlib.decompressobj(_ZLIB if data[0] & 0x0F == 8 and header % 31 == 0 else _RAW)

    def finish(self) -> None:
        if self._decoder is not None or self._start:
            raise CodingError("a compressed body ends too early")


class _Brotli:
    """RFC 7932, windows of 16 MiB at most, as the library has it by default."""

    def __init__(self) -> None:
        self._decoder = brotli.Decompressor()
        self._begun = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        decoder = self._decoder
        self._begun = True
        try:
            out = decoder.process(data, output_buffer_limit=_OUT)
            while out:
                yield out
                out = decoder.process(b"", output_buffer_limit=_OUT)
        except brotli.error as error:
            raise CodingError("a compressed body is damaged, or goes on after its end") from error

    def finish(self) -> None:
        if self._begun and not self._decoder.is_finished():
            raise CodingError("a compressed body ends too early")


class _Zstd:
    """RFC 8878, with all its frames; no dictionaries."""

    def __init__(self) -> None:
        self._context = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
        self._decoder: zstandard.ZstdDecompressionObj | None = None
        self._frames = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        for at in range(0, len(data), _ZSTD_IN):
            piece = data[at : at + _ZSTD_IN]
            while piece:
                decoder = self._decoder or self._begin()
                try:
                    out = decoder.decompress(piece)
                except zstandard.ZstdError as error:
                    raise CodingError("a compressed body is damaged, or goes on after its end") from error
                if out:
                    yield out
                piece = decoder.unused_data if decoder.eof else b""
                self._decoder = None if decoder.eof else decoder

    def _begin(self) -> zstandard.ZstdDecompressionObj:
        self._frames += 1
        if self._frames > MEMBER_LIMIT:
            raise CodingError(f"a compressed body of more than {MEMBER_LIMIT} frames")
        return self._context.decompressobj()

    def finish(self) -> None:
        if self._decoder is not None:
            raise CodingError("a compressed body ends too early")


def _layer(coding: str) -> _Layer:
    if coding == "br":
        return _Brotli()
    if coding == "zstd":
        return _Zstd()
    return _Zlib(gzip=coding == "gzip")


READABLE = frozenset({"gzip", "deflate", "br", "zstd"})


def codings_of(values: Iterable[bytes]) -> tuple[str, ...] | None:
    """The codings that Content-Encoding's `values` name, in the order they were applied, without `identity`. None where
    one of them is not read here, or there are too many."""
    named: list[str] = []
    for value in values:
        for word in value.split(b","):
            coding = word.strip(b" \t").decode("latin-1").lower()
            coding = _OTHER_NAMES.get(coding, coding)
            if coding in READABLE:
                named.append(coding)
            elif coding not in ("", "identity"):
                return None
    return tuple(named) if len(named) <= STACK_LIMIT else None


def readable(values: Iterable[bytes]) -> bytes:
    """An Accept-Encoding that asks for nothing but what is read here, out of the client's (`values`)."""
    kept = []
    for value in values:
        for word in value.split(b","):
            coding = word.partition(b";")[0].strip(b" \t").decode("latin-1").lower()
            if coding == "identity" or _OTHER_NAMES.get(coding, coding) in READABLE:
                kept.append(word.strip(b" \t"))
    return b", ".join(kept) or b"identity"


class Decoder:
    """Undoes `codings`, the last one applied first."""

    def __init__(self, codings: tuple[str, ...]) -> None:
        self._layers = [_layer(coding) for coding in reversed(codings)]
        self._taken = 0
        self._given = 0

    def feed(self, data: bytes, final: bool) -> bytes:
        """What `data` stands for; on the `final` piece also checks that all of it has come. Raises CodingError."""
        self._taken += len(data)
        pieces: list[bytes] = []
        size = 0
        for piece in self._through(data, 0):
            pieces.append(piece)
            size += len(piece)
            self._given += len(piece)
            if size > PIECE_LIMIT or (self._given > RATIO_FREE and self._given > RATIO_LIMIT * self._taken):
                raise CodingError(f"a compressed body grows to more than {RATIO_LIMIT} times its size")
        if final and self._taken:
            for layer in self._layers:
                layer.finish()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _through(self, data: bytes, depth: int) -> Iterator[bytes]:
        if depth == len(self._layers):
            yield data
            return
        for piece in self._layers[depth].feed(data):
            yield from self._through(piece, depth + 1)


class _Encoding(Protocol):
    def feed(self, data: bytes, final: bool) -> bytes: ...


class _ZlibEncoding:
    def __init__(self, *, gzip: bool) -> None:
        self._encoder = zlib.compressobj(_ZLIB_LEVEL, zlib.DEFLATED, _GZIP if gzip else _ZLIB)

    def feed(self, data: bytes, final: bool) -> bytes:
        return self._encoder.compress(data) + self._encoder.flush(zlib.Z_FINISH if final else zlib.Z_SYNC_FLUSH)


class _BrotliEncoding:
    def __init__(self) -> None:
        self._encoder = brotli.Compressor(quality=_BROTLI_QUALITY, lgwin=_BROTLI_WINDOW)

    def feed(self, data: bytes, final: bool) -> bytes:
        coded: bytes = self._encoder.process(data) + (self._encoder.finish() if final else self._encoder.flush())
        return coded


class _ZstdEncoding:
    def __init__(self) -> None:
        self._encoder = zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compressobj()

    def feed(self, data: bytes, final: bool) -> bytes:
        mode = zstandard.COMPRESSOBJ_FLUSH_FINISH if final else zstandard.COMPRESSOBJ_FLUSH_BLOCK
        return self._encoder.compress(data) + self._encoder.flush(mode)


def _encoding(coding: str) -> _Encoding:
    if coding == "br":
        return _BrotliEncoding()
    if coding == "zstd":
        return _ZstdEncoding()
    return _ZlibEncoding(gzip=coding == "gzip")


class Encoder:
    """Does `codings` again. A body of no bytes at all stays one."""

    def __init__(self, codings: tuple[str, ...]) -> None:
        self._layers = [_encoding(coding) for coding in codings]
        self._begun = False

    def feed(self, data: bytes, final: bool) -> bytes:
        """`data` coded, so that its reader has all of it without waiting for more."""
        if not data and not (final and self._begun):
            return b""
        self._begun = True
        for layer in self._layers:
            data = layer.feed(data, final)
        return data
