"""Step 4 of 6, inspect: header compression of HTTP/2 (RFC 7541), one decoder and one encoder per side.

The static table and Huffman decoding are the `hpack` library's; the walk over the representations is done here,
because most blocks of a connection are the same few bytes over and over, and then cost one look-up. Tests compare both
directions with the library's own.
"""

from __future__ import annotations

from functools import lru_cache

from hpack.exceptions import HPACKDecodingError
from hpack.huffman_table import decode_huffman
from hpack.table import HeaderTable

from enforcer.errors import ProtocolError
from enforcer.flow import Side
from enforcer.protocols.http2.frames import COMPRESSION_ERROR, ENHANCE_YOUR_CALM, ConnectionFault

Field = tuple[bytes, bytes]
Fields = list[Field]

# Bytes of a message's fields, each with 32 more as RFC 9113 section 6.5.2 counts: what HTTP/1 heads have here, as AWS's
# load balancer and Node allow.
HEAD_LIMIT = 64 * 1024
# Bytes of a dynamic table: RFC 7541's first value, which we neither raise nor exceed.
TABLE_LIMIT = 4096
# What an entry costs beside its bytes (RFC 7541 section 4.1).
_ENTRY = 32
# Field blocks remembered with what they say, and fields seen once: a client repeats a few dozen.
_REMEMBERED = 128
# Octets of an encoded number: five bring 35 bits, more than anything here may have.
_NUMBER_OCTETS = 5

STATIC: tuple[Field, ...] = tuple((bytes(name), bytes(value)) for name, value in HeaderTable.STATIC_TABLE)
_STATIC_COUNT = len(STATIC)
_STATIC_FIELDS: dict[Field, bytes] = {field: bytes((0x80 | at,)) for at, field in reversed(list(enumerate(STATIC, 1)))}
_STATIC_NAMES: dict[bytes, int] = {name: at for at, (name, _) in reversed(list(enumerate(STATIC, 1)))}


@lru_cache(maxsize=4096)
def _unhuffman(coded: bytes) -> bytes:
    return bytes(decode_huffman(coded))


class Decoder:
    """Field blocks of `side`, in the order they came. `secret`: names in the last block that no one may index."""

    def __init__(self, side: Side) -> None:
        self.secret: frozenset[bytes] = frozenset()
        self._side = side
        self._entries: Fields = []  # oldest first
        self._size = 0
        self._limit = TABLE_LIMIT
        self._remembered: dict[bytes, tuple[Fields, frozenset[bytes]]] = {}

    def decode(self, block: bytes) -> Fields:
        """The fields of one block; the very same list where the same bytes came before and mean the same.

        Raises ConnectionFault: both sides' tables would no longer agree.
        """
        known = self._remembered.get(block)
        if known is not None:
            self.secret = known[1]
            return known[0]
        fields: Fields = []
        secret: list[bytes] = []
        changed = self._read(block, fields, secret)
        self.secret = frozenset(secret)
        if changed or len(self._remembered) >= _REMEMBERED:
            self._remembered.clear()
        if not changed:
            self._remembered[block] = (fields, self.secret)
        return fields

    def _read(self, block: bytes, fields: Fields, secret: list[bytes]) -> bool:
        """Appends the block's fields; returns whether it changed the table."""
        at, end, size, changed = 0, len(block), 0, False
        while at < end:
            octet = block[at]
            if octet & 0x80:
                index, at = self._number(block, at, 0x7F)
                field = self._entry(index)
            elif octet & 0xE0 == 0x20:
                limit, at = self._number(block, at, 0x1F)
                if fields or limit > TABLE_LIMIT:
                    raise self._fault("a change of the table's size out of place")
                self._limit = limit
                self._evict(limit)
                changed = True
                continue
            else:
                indexed = octet & 0x40 != 0
                index, at = self._number(block, at, 0x3F if indexed else 0x0F)
                if index:
                    name = self._entry(index)[0]
                else:
                    name, at = self._text(block, at)
                value, at = self._text(block, at)
                field = (name, value)
                if indexed:
                    self._insert(field)
                    changed = True
                elif octet & 0x10:
                    secret.append(name)
            size += len(field[0]) + len(field[1]) + _ENTRY
            if size > HEAD_LIMIT:
                raise ConnectionFault(self._side, f"more than {HEAD_LIMIT} bytes of header fields", ENHANCE_YOUR_CALM)
            fields.append(field)
        return changed

    def _number(self, block: bytes, at: int, mask: int) -> tuple[int, int]:
        """RFC 7541 section 5.1: a number, and where what follows it begins."""
        value = block[at] & mask
        at += 1
        if value < mask:
            return value, at
        shift = 0
        for octet in block[at : at + _NUMBER_OCTETS]:
            at += 1
            value += (octet & 0x7F) << shift
            if octet < 0x80:
                return value, at
            shift += 7
        raise self._fault("a number without an end")

    def _text(self, block: bytes, at: int) -> tuple[bytes, int]:
        if at >= len(block):
            raise self._fault("a field without its end")
        coded = block[at] & 0x80 != 0
        length, at = self._number(block, at, 0x7F)
        text = block[at : at + length]
        if len(text) != length:
            raise self._fault("a field without its end")
        if coded:
            try:
                text = _unhuffman(text)
            except HPACKDecodingError as error:
                raise self._fault("a wrong Huffman code") from error
        return text, at + length

    def _entry(self, index: int) -> Field:
        if 0 < index <= _STATIC_COUNT:
            return STATIC[index - 1]
        place = len(self._entries) + _STATIC_COUNT - index
        if index == 0 or place < 0:
            raise self._fault("a field that its table does not hold")
        return self._entries[place]

    def _insert(self, field: Field) -> None:
        size = len(field[0]) + len(field[1]) + _ENTRY
        self._evict(self._limit - size)
        if size <= self._limit:
            self._entries.append(field)
            self._size += size

    def _evict(self, limit: int) -> None:
        """Makes the table no larger than `limit` bytes."""
        gone = 0
        while self._size > limit and gone < len(self._entries):
            name, value = self._entries[gone]
            self._size -= len(name) + len(value) + _ENTRY
            gone += 1
        if gone:
            del self._entries[:gone]

    def _fault(self, reason: str) -> ProtocolError:
        return ConnectionFault(self._side, f"{reason} (HPACK)", COMPRESSION_ERROR)


class Encoder:
    """Field blocks for one peer. A field enters the table when it is seen for the second time, so that what is never
    the same twice (paths, lengths, dates) leaves it alone."""

    def __init__(self) -> None:
        # Changes whenever the table does: a block that was made under another version means something else.
        self.version = 0
        # Fields that were new when they came: a block without any comes out the same again.
        self.seen = 0
        self._numbers: dict[Field, int] = {}
        self._entries: Fields = []  # oldest first
        self._inserted = 0
        self._size = 0
        self._limit = TABLE_LIMIT
        self._resized: int | None = None
        self._seen: set[Field] = set()

    def resize(self, limit: int) -> None:
        """The peer's HEADER_TABLE_SIZE. Less than ours is announced with the next block."""
        limit = min(limit, TABLE_LIMIT)
        if limit != self._limit:
            # RFC 7541 section 4.2: the smallest size in between has to be said as well; a table emptied is as small.
            self._limit = limit
            self._resized = limit
            self._evict(0)
            self.version += 1

    def encode(self, fields: Fields, secret: frozenset[bytes] = frozenset()) -> bytes:
        """One block. Fields that `secret` names enter nobody's table on the way (RFC 7541 section 7.1.3)."""
        out: list[bytes] = []
        if self._resized is not None:
            out += (b"\x20", _number(self._resized, 0x1F, 0x20))
            self._resized = None
            self.version += 1
        for field in fields:
            known = _STATIC_FIELDS.get(field)
            if known is not None:
                out.append(known)
                continue
            number = self._numbers.get(field)
            if number is not None:
                out.append(_number(_STATIC_COUNT + self._inserted - number, 0x7F, 0x80))
                continue
            name, value = field
            index = _STATIC_NAMES.get(name, 0)
            if secret and name in secret:
                out.append(_number(index, 0x0F, 0x10))
            elif field in self._seen and len(name) + len(value) + _ENTRY <= self._limit:
                out.append(_number(index, 0x3F, 0x40))
                self._insert(field)
            else:
                if len(self._seen) >= _REMEMBERED:
                    self._seen.clear()
                self._seen.add(field)
                self.seen += 1
                out.append(_number(index, 0x0F, 0x00))
            if not index:
                out += (_number(len(name), 0x7F, 0x00), name)
            out += (_number(len(value), 0x7F, 0x00), value)
        return b"".join(out)

    def _insert(self, field: Field) -> None:
        size = len(field[0]) + len(field[1]) + _ENTRY
        self._evict(self._limit - size)
        self._entries.append(field)
        self._size += size
        self._numbers[field] = self._inserted
        self._inserted += 1
        self._seen.discard(field)
        self.version += 1

    def _evict(self, limit: int) -> None:
        gone = 0
        while self._size > limit and gone < len(self._entries):
            field = self._entries[gone]
            self._size -= len(field[0]) + len(field[1]) + _ENTRY
            del self._numbers[field]
            gone += 1
        if gone:
            del self._entries[:gone]


class Block:
    """What a head that comes again and again is coded as, while that stays the same."""

    def __init__(self) -> None:
        self._block = b""
        self._encoder: Encoder | None = None
        self._version = 0

    def encode(self, encoder: Encoder, fields: Fields, secret: frozenset[bytes]) -> bytes:
        """`encoder.encode`, remembered from the third time on: by then its fields are in the table."""
        if self._encoder is encoder and self._version == encoder.version:
            return self._block
        version, seen = encoder.version, encoder.seen
        block = encoder.encode(fields, secret)
        if encoder.version == version and encoder.seen == seen:
            self._block, self._encoder, self._version = block, encoder, version
        return block


_SHORT: tuple[bytes, ...] = tuple(bytes((octet,)) for octet in range(256))


def _number(value: int, mask: int, flags: int) -> bytes:
    """RFC 7541 section 5.1."""
    if value < mask:
        return _SHORT[flags | value]
    out = bytearray((flags | mask,))
    value -= mask
    while value >= 0x80:
        out.append(0x80 | value & 0x7F)
        value >>= 7
    out.append(value)
    return bytes(out)
