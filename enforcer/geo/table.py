"""Step 1 of 6, capture: the compiled table, one read-only file that every process maps and shares.

Gets an address, hands on the Region of the one row that holds it, in about a microsecond; and hands the same rows,
packed as keys and values of the kernel's LPM tries, to the supervisor. It never merges or repairs: a file that does
not check out is refused. `compiled.py` writes it.

    header     64 bytes: magic, format, byte order mark, length of meta, length of body, sha256 of meta
    meta       JSON: key, origins, sets, rows per block, figures, sha256 of the body
    body       per block the columns one after the other, each padded to 8 bytes, ascending, disjoint
      v4       first u32, prefix length u8, set u16
      v6       upper half of first u64, prefix length u8 (at most 64), set u16
      v6long   upper half u64, lower half u64, prefix length u8 (65 to 128), set u16
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import stat
import struct
import sys
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, Literal

from enforcer.errors import TableError
from enforcer.flow import Address, Region
from enforcer.geo.address import BITS, MAPPED, Version, cidr
from enforcer.geo.merge import RegionSet
from enforcer.geo.rows import Origin

MAGIC = b"EGEO\r\n\x1a\n"
"""As in PNG: the line ends show a file that went through a text conversion."""
FORMAT = 2
BYTE_ORDER_MARK = 0x01020304
HEADER = struct.Struct("=8sIIQQ32s")

Code = Literal["B", "H", "I", "Q"]

BLOCKS: dict[str, tuple[Code, ...]] = {"v4": ("I", "B", "H"), "v6": ("Q", "B", "H"), "v6long": ("Q", "Q", "B", "H")}
"""Columns of each block as `array` type codes."""

MEND = "remove it, and it is built again"

REGIONS_KEPT = 4096
"""Answers that are remembered: an executor goes to the same places again and again, and the text of a prefix takes
longer than finding it. Some 2 MB."""

Columns = dict[str, list["memoryview[int]"]]


class GeoTable:
    """One compiled table. Immutable, safe to share between threads, valid after its file was replaced.

    `version`: short hash of everything in it. `key`: hash of its inputs. `origins`: the tables it was made of.
    `sets`: index = set id, 0 is "unknown". `counts`: prefixes as `v4` and `v6`, `sets`, and how much country tables
    know (`v4_placed`) and disagree on (`v4_disputed`), in addresses for IPv4 and in /64 networks for IPv6.
    """

    def __init__(self, view: memoryview, name: str) -> None:
        """Checks `view`, the whole file; `name` is for messages. Raises TableError. Use `open`."""
        meta, start = _read_meta(view, name)
        body = view[start:]
        if hashlib.sha256(body).hexdigest() != meta["body_sha256"]:
            raise TableError(f"{name}: the geography table is damaged (checksum); {MEND}")
        self._mapping: mmap.mmap = view.obj  # type: ignore[assignment]  # what `_map` made
        self._regions: dict[tuple[bool, int, int], Region] = {}
        self.forget_pages()
        columns = _columns(body, meta["rows"], name)
        self._first4, self._length4, self._set4 = columns["v4"]
        self._high6, self._length6, self._set6 = columns["v6"]
        self._high_long, self._low_long, self._length_long, self._set_long = columns["v6long"]
        self.version: str = hashlib.sha256(view[:start]).hexdigest()[:12]
        self.key: str = meta["key"]
        self.origins = tuple(Origin(**origin) for origin in meta["origins"])
        self.sets = tuple(RegionSet(frozenset(regions), *texts) for regions, *texts in meta["sets"])
        self.counts: Mapping[str, int] = {
            "v4": len(self._set4),
            "v6": len(self._set6) + len(self._set_long),
            **meta["figures"],
        }

    @classmethod
    def open(cls, place: Path | int) -> GeoTable:
        """Maps the file at a path or open descriptor (which stays the caller's).

        Refuses a file that someone other than root and this process's user owns or may write. Raises TableError.
        """
        name = str(place) if isinstance(place, Path) else f"descriptor {place}"
        try:
            if isinstance(place, int):
                return cls(_map(place, name), name)
            descriptor = os.open(place, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                return cls(_map(descriptor, name), name)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise TableError(f"{name}: cannot read the geography table ({error.strerror}); build it again") from error

    def forget_pages(self) -> None:
        """Gives back the memory of pages that a full read (the checksum, the kernel's copy) has touched; they stay in
        the page cache, and lookups bring back the few they need."""
        self._mapping.madvise(mmap.MADV_DONTNEED)

    def region_set(self, ident: int) -> RegionSet:
        return self.sets[ident]

    def set_id(self, address: Address) -> int:
        """The id of the address's set; 0 where no row holds it."""
        return self.find(address)[0]

    def lookup(self, address: Address) -> Region:
        """Never raises: an address in no row is `unknown`, with the whole space as its prefix."""
        value = int(address)
        # As `normalise` does it, on the number: an address of IPv4 in IPv6 form is that of IPv4, a zone is none.
        four = isinstance(address, IPv4Address) or value >> 32 == MAPPED
        ident, first, length = self._find4(value & 0xFFFF_FFFF) if four else self._find6(value)
        row = four, first, length
        region = self._regions.get(row)
        if region is None:
            if len(self._regions) >= REGIONS_KEPT:
                self._regions.clear()
            regions, kind, source, words = self.sets[ident]
            region = Region(regions, kind, cidr(4 if four else 6, first, length), source, words)
            self._regions[row] = region
        return region

    def find(self, address: Address) -> tuple[int, int, int]:
        """`(set id, first address of the row, its prefix length)`; (0, 0, 0) where no row holds the address."""
        value = int(address)
        if isinstance(address, IPv4Address) or value >> 32 == MAPPED:
            return self._find4(value & 0xFFFF_FFFF)
        return self._find6(value)

    def _find4(self, value: int) -> tuple[int, int, int]:
        at = bisect_right(self._first4, value) - 1
        if at >= 0:
            first, length = self._first4[at], self._length4[at]
            if not (value ^ first) >> (32 - length):
                return self._set4[at], first, length
        return 0, 0, 0

    def _find6(self, value: int) -> tuple[int, int, int]:
        high = value >> 64
        at = bisect_right(self._high6, high) - 1
        if at >= 0:
            first, length = self._high6[at], self._length6[at]
            if not (high ^ first) >> (64 - length):
                return self._set6[at], first << 64, length
        return self._find_long(value, high)

    def _find_long(self, value: int, high: int) -> tuple[int, int, int]:
        """Rows longer than /64 that share the address's upper half; rows are disjoint, so no shorter one competes."""
        end = bisect_right(self._high_long, high)
        if not end or self._high_long[end - 1] != high:
            return 0, 0, 0
        begin = bisect_left(self._high_long, high, 0, end)
        low = value & 0xFFFF_FFFF_FFFF_FFFF
        at = bisect_right(self._low_long, low, begin, end) - 1
        if at >= begin:
            first, length = self._low_long[at], self._length_long[at]
            if not (low ^ first) >> (128 - length):
                return self._set_long[at], high << 64 | first, length
        return 0, 0, 0

    def addresses(self, version: Version) -> list[int]:
        """How many addresses each set has, by its id; those of set 0 are what no row holds."""
        bits = BITS[version]
        counts = [0] * len(self.sets)
        for lengths, idents in ((self._length4, self._set4),) if version == 4 else self._columns6():
            for length, ident in zip(lengths, idents, strict=True):
                counts[ident] += 1 << (bits - length)
        counts[0] = (1 << bits) - sum(counts)
        return counts

    def _columns6(self) -> tuple[tuple[memoryview[int], memoryview[int]], ...]:
        return (self._length6, self._set6), (self._length_long, self._set_long)

    def kernel_entries(self, version: Version, chunk: int = 65536) -> Iterator[tuple[int, bytes, bytes]]:
        """`(count, keys, values)` for batched updates of an LPM trie, at most `chunk` rows each.

        Key: `struct bpf_lpm_trie_key`: u32 prefix length in native order, then 4 or 16 bytes of address in network
        order. Value: u32 set id in native order. Id 0 never occurs: a miss in the trie means the same.
        """
        if version == 4:
            for part in _slices(len(self._set4), chunk):
                address = [_words(self._first4[part])]
                yield _pack(address, self._length4[part], self._set4[part])
            return
        for part in _slices(len(self._set6), chunk):
            upper = _words(self._high6[part])
            nothing = array("I", bytes(2 * len(upper)))
            address = [upper[0::2], upper[1::2], nothing, nothing]
            yield _pack(address, self._length6[part], self._set6[part])
        for part in _slices(len(self._set_long), chunk):
            upper, lower = _words(self._high_long[part]), _words(self._low_long[part])
            address = [upper[0::2], upper[1::2], lower[0::2], lower[1::2]]
            yield _pack(address, self._length_long[part], self._set_long[part])


def _slices(count: int, chunk: int) -> Iterator[slice]:
    return (slice(at, min(at + chunk, count)) for at in range(0, count, chunk))


def _words(column: memoryview[int]) -> array[int]:
    """A column of u32 or u64 as 32-bit words whose bytes in memory are in network order."""
    numbers = array(column.format)
    numbers.frombytes(column.cast("B"))
    if sys.byteorder == "little":
        numbers.byteswap()
    return array("I", numbers.tobytes())


def _pack(address: list[array[int]], lengths: memoryview[int], sets: memoryview[int]) -> tuple[int, bytes, bytes]:
    """Interleaves columns by slice assignment: C speed, no Python loop over rows."""
    count = len(lengths)
    width = 1 + len(address)
    low = 0 if sys.byteorder == "little" else 1  # where the low half or byte of a wider integer lies
    wide = bytearray(4 * count)
    wide[3 * low :: 4] = lengths
    keys = array("I", bytes(4 * width * count))
    keys[0::width] = array("I", bytes(wide))
    for place, words in enumerate(address, 1):
        keys[place::width] = words
    values = array("H", bytes(4 * count))
    values[low::2] = array("H", sets.tobytes())
    return count, keys.tobytes(), values.tobytes()


def _map(descriptor: int, name: str) -> memoryview:
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        raise TableError(f"{name}: not a regular file; {MEND}")
    if found.st_uid not in {0, os.geteuid()} or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise TableError(f"{name}: someone else owns or may write the geography table; {MEND}")
    if found.st_size < HEADER.size:
        raise TableError(f"{name}: the geography table is cut short; {MEND}")
    return memoryview(mmap.mmap(descriptor, found.st_size, prot=mmap.PROT_READ))


def _read_meta(view: memoryview, name: str) -> tuple[dict[str, Any], int]:
    """The checked meta and where the body starts."""
    magic, version, mark, meta_length, body_length, digest = HEADER.unpack_from(view)
    if magic != MAGIC or version != FORMAT or mark != BYTE_ORDER_MARK:
        raise TableError(f"{name}: no geography table of format {FORMAT} for this machine; {MEND}")
    start = HEADER.size + meta_length
    if len(view) != start + body_length:
        raise TableError(f"{name}: the geography table is cut short or has a tail; {MEND}")
    text = bytes(view[HEADER.size : start])
    if hashlib.sha256(text).digest() != digest:
        raise TableError(f"{name}: the geography table is damaged (header); {MEND}")
    meta: dict[str, Any] = json.loads(text)
    return meta, start


def _columns(body: memoryview, rows: dict[str, int], name: str) -> Columns:
    columns: Columns = {}
    at = 0
    for block, codes in BLOCKS.items():
        columns[block] = []
        for code in codes:
            size = rows[block] * struct.calcsize(f"={code}")
            columns[block].append(body[at : at + size].cast("B").cast(code))
            at += size + -size % 8
    if at != len(body):
        raise TableError(f"{name}: the geography table's columns do not fill it; {MEND}")
    return columns


def encode(key: str, columns: Mapping[str, list[array[int]]], meta: Mapping[str, Any]) -> bytes:
    """The file's bytes. `columns` are those of BLOCKS; `meta` holds `origins`, `sets` and `figures`."""
    body = bytearray()
    for block, codes in BLOCKS.items():
        for code, column in zip(codes, columns[block], strict=True):
            body += array(code, column).tobytes()
            body += bytes(-len(body) % 8)
    rows = {block: len(columns[block][0]) for block in BLOCKS}
    whole = {"key": key, "rows": rows, "body_sha256": hashlib.sha256(body).hexdigest(), **meta}
    text = json.dumps(whole, sort_keys=True, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    digest = hashlib.sha256(text).digest()
    return HEADER.pack(MAGIC, FORMAT, BYTE_ORDER_MARK, len(text), len(body), digest) + text + body
