"""Step 1 of 6, capture: the primary country table, a MaxMind DB file.

Gets the file's bytes, hands on one row per run of addresses with the same country. The library's own iterator
builds an `ip_network` per prefix (7 s for a million of them); walking the search tree takes a fifth of that, and
the library is asked once per distinct record, so its decoder stays the only judge of what a record says.
Format: MaxMind DB file format specification 2.0, section "Binary Search Tree Section".
"""

from __future__ import annotations

import hashlib
import io
import lzma
import sys
from array import array
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import maxminddb

from enforcer.errors import TableError
from enforcer.flow import Address
from enforcer.geo.address import BITS, VERSIONS, Version, to_address
from enforcer.geo.iso import countries
from enforcer.geo.rows import Input, Origin, Row

SHIPPED = Path(__file__).parent / "data" / "geo-whois-asn-country.mmdb.xz"
SHIPPED_SHA256 = "c5f7c0e9bd6a6ccb5a2e9634764544a0d08bd0bd8788b8aedfac87bea184c652"
"""Of the decompressed file; see data/SOURCES.md."""
SHIPPED_VERSION = "2.3.2026061719"

XZ_MAGIC = b"\xfd7zXZ\0"

COUNTRY_FIELDS = ("country_code", "country")
"""Where a record keeps its code: ip-location-db's flat text, or MaxMind's `country.iso_code`."""

DAMAGE = (maxminddb.InvalidDatabaseError, ValueError, TypeError, KeyError, IndexError, OverflowError, OSError)
"""What the library's decoder, and the conversion of the build date, raise on damaged bytes."""

MEND = "install the table again, or name another MMDB"


class CountryMmdb:
    """A country table in MMDB form, plain or xz-compressed. Raises TableError where the file is damaged."""

    def __init__(self, source: Input, name: str = "") -> None:
        """`name`: what to call it, where that is not the name of its file."""
        self._path = source.path
        data = _decompress(source) if source.data.startswith(XZ_MAGIC) else source.data
        digest = hashlib.sha256(data).hexdigest()
        if source.path == SHIPPED and digest != SHIPPED_SHA256:
            raise TableError(f"{source.path}: not the table that was shipped (sha256 {digest}); reinstall enforcer")
        try:
            self._reader = maxminddb.open_database(io.BytesIO(data), maxminddb.MODE_FD)
            self._metadata = self._reader.metadata()
            date = datetime.fromtimestamp(self._metadata.build_epoch, UTC).date().isoformat()
        except DAMAGE as error:
            raise TableError(f"{self._path}: not a whole MMDB file ({error}); {MEND}") from error
        name = name or source.path.name.removesuffix(".xz").removesuffix(".mmdb")
        self._origin = Origin(name, SHIPPED_VERSION if digest == SHIPPED_SHA256 else date, date, digest)
        self._data = data

    @property
    def origin(self) -> Origin:
        return self._origin

    def rows(self) -> Iterator[Row]:
        empty = True
        for version in VERSIONS:
            for row in self._family(version):
                empty = False
                yield row
        if empty:
            raise TableError(f"{self._path}: no prefix in it has a country; {MEND}")

    def country(self, address: Address) -> str:
        """The code of one address, or an empty text; quicker than all rows."""
        try:
            record = self._reader.get(address)
        except DAMAGE as error:
            raise self._damaged(f"the record of {address} cannot be decoded") from error
        code = _code_of(record)
        return code if code in countries() else ""

    def _family(self, version: Version) -> Iterator[Row]:
        """Runs of addresses with one record each. Records without an assigned ISO code, such as those that
        name a registered country only, carry none."""
        regions: dict[int, frozenset[str]] = {}
        known = countries()
        runs = [*self._walk(version), (1 << BITS[version], -1)]
        for (first, record), (end, _) in pairwise(runs):
            if record < 0:
                continue
            if record not in regions:
                code = self._code(version, first)
                regions[record] = frozenset({code} if code in known else ())
            if regions[record]:
                yield Row(version, first, end - 1, regions[record])

    def _code(self, version: Version, value: int) -> str:
        address = to_address(version, value)
        try:
            record = self._reader.get(address)
        except DAMAGE as error:
            raise self._damaged(f"the record of {address} cannot be decoded") from error
        if not isinstance(record, dict):
            raise self._damaged(f"the record of {address} has no country")
        return _code_of(record)

    def _walk(self, version: Version) -> Iterator[tuple[int, int]]:
        """`(first address, record)` at each change of record, ascending from 0; record -1 is "no data"."""
        tree, count, ipv4_root = self._tree, self._metadata.node_count, self._ipv4_root
        if version == 6 and self._metadata.ip_version == 4:
            yield 0, -1
            return
        # A node below count is a branch, count itself is "no data", anything above is a record's place.
        pending = [(ipv4_root if version == 4 else 0, 0, BITS[version])]
        previous = None
        visited = 0
        while pending:
            node, first, below = pending.pop()
            if node < count and not (version == 6 and node == ipv4_root):
                visited += 1
                if below == 0 or visited > count:
                    raise self._damaged("the search tree has a loop")
                below -= 1
                pending.append((tree[2 * node + 1], first | 1 << below, below))
                pending.append((tree[2 * node], first, below))
                continue
            # IPv6 space that leads into the IPv4 tree (::/96 and its aliases) is special-purpose: no country.
            record = node if node > count else -1
            if record != previous:
                yield first, record
                previous = record

    @cached_property
    def _ipv4_root(self) -> int:
        """The node of ::/96, under which an IPv6 tree keeps IPv4."""
        node = 0
        for _ in range(0 if self._metadata.ip_version == 4 else 96):
            if node < self._metadata.node_count:
                node = self._tree[2 * node]
        return node

    @cached_property
    def _tree(self) -> array[int]:
        """Left and right record of every node, one after the other."""
        size, count = self._metadata.record_size, self._metadata.node_count
        raw = self._data[: count * size // 4]
        if len(raw) < count * size // 4:
            raise self._damaged("the search tree is cut short")
        if size == 28:  # two records share their middle byte, high nibbles first
            nodes = (raw[at : at + 7] for at in range(0, len(raw), 7))
            pairs = (
                (int.from_bytes(n[:3]) | n[3] >> 4 << 24, int.from_bytes(n[4:]) | (n[3] & 15) << 24) for n in nodes
            )
            return array("I", [record for pair in pairs for record in pair])
        if size not in {24, 32}:
            raise self._damaged(f"record size {size} is none of 24, 28, 32 bits")
        width = size // 8
        wide = bytearray(8 * count)
        for byte in range(width):  # byte 0 is the least significant one, wherever this machine keeps it
            at = byte if sys.byteorder == "little" else 3 - byte
            wide[at::4] = raw[width - 1 - byte :: width]
        return array("I", bytes(wide))

    def _damaged(self, what: str) -> TableError:
        return TableError(f"{self._path}: {what}; {MEND}")


def _code_of(record: object) -> str:
    for name in COUNTRY_FIELDS:
        found = record.get(name) if isinstance(record, dict) else None
        if isinstance(found, dict):
            found = found.get("iso_code")
        if isinstance(found, str):
            return found
    return ""


def _decompress(source: Input) -> bytes:
    try:
        return lzma.decompress(source.data, lzma.FORMAT_XZ)
    except lzma.LZMAError as error:
        raise TableError(f"{source.path}: not a whole xz file ({error}); {MEND}") from error
