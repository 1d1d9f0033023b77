"""Step 1 of 6, capture: the second opinion, the IPFire location table in the text form of Debian's `tor-geoipdb`.

Two files: `geoip` with `first,last,CC` in IPv4 integers, `geoip6` with textual IPv6 addresses; `#` lines are
comments, and the header names the day of the export. Gets their bytes, hands on rows with an assigned ISO code.
`??`, `EU`, `AP` and other codes that name no country carry none: such a row is no opinion.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from email.utils import parsedate_to_datetime
from socket import AF_INET6, inet_pton

from enforcer.errors import TableError
from enforcer.geo.address import BITS, VERSIONS, Version, to_address
from enforcer.geo.iso import countries
from enforcer.geo.rows import Input, Origin, Row

MEND = "fetch it again with tools/fetch-ipfire.sh"

LAST_BLOCK: dict[Version, int] = {4: 223 << 24, 6: 0x2C00 << 112}
"""A whole table reaches at least the last block that registries hand out (223.0.0.0/8, 2c00::/12). Rows ascend, so a
file cut at the end of a line shows here and nowhere else."""

FAULTS_SHOWN = 10
"""A damaged file has thousands of bad lines; the first ten say what is wrong."""

_GENERATED = re.compile(rb"^# Generated: *(.+?) *$", re.MULTILINE)


class IpfireTable:
    """Both files of one export. Raises TableError where either is damaged or cut short."""

    def __init__(self, ipv4: Input, ipv6: Input, name: str = "ipfire") -> None:
        self._inputs: dict[Version, Input] = {4: ipv4, 6: ipv6}
        digest = Origin.combined(ipv4.sha256, ipv6.sha256)
        date = min(_date(ipv4), _date(ipv6))
        self._origin = Origin(name, date or digest[:12], date, digest)

    @property
    def origin(self) -> Origin:
        return self._origin

    def rows(self) -> Iterator[Row]:
        for version in VERSIONS:
            yield from _parse(version, self._inputs[version])


def _parse(version: Version, source: Input) -> Iterator[Row]:
    to_int: Callable[[bytes], int] = int if version == 4 else _ipv6
    regions = {code.encode(): frozenset({code}) for code in countries()}
    limit = 1 << BITS[version]
    previous = -1
    faults: list[str] = []
    if not source.data.endswith(b"\n"):
        raise TableError(f"{source.path}: the last line is cut short; {MEND}")
    for number, line in enumerate(source.data.split(b"\n"), 1):
        if not line or line.startswith(b"#"):
            continue
        try:
            first_text, last_text, code = line.split(b",")
            first, last = to_int(first_text), to_int(last_text)
        except (ValueError, OSError):
            faults.append(f"{source.path}:{number}: not `first,last,code`; {MEND}")
        else:
            if not previous < first <= last < limit:
                faults.append(f"{source.path}:{number}: the range is reversed or not after the one before; {MEND}")
            elif len(code) != 2:
                faults.append(f"{source.path}:{number}: the country code has not two letters; {MEND}")
            elif code in regions:
                yield Row(version, first, last, regions[code])
            previous = max(previous, last)
        if len(faults) == FAULTS_SHOWN:
            break
    if faults:
        raise TableError("\n".join(faults))
    if previous < LAST_BLOCK[version]:
        end = to_address(version, previous) if previous >= 0 else "nothing"
        raise TableError(f"{source.path}: the table ends at {end}, before the last public block; {MEND}")


def _ipv6(text: bytes) -> int:
    return int.from_bytes(inet_pton(AF_INET6, text.decode("ascii")))


def _date(source: Input) -> str:
    """Day of the export, ISO 8601, or an empty text where the header does not name one."""
    found = _GENERATED.search(source.data[:4096])
    if not found:
        return ""
    try:
        return parsedate_to_datetime(found[1].decode("ascii")).date().isoformat()
    except ValueError:
        return ""
