"""Step 1 of 6, capture: the operator's own tables, `/etc/enforcer/geo/*.csv`.

Lines are `cidr,region[,label]`; `#` begins a comment line; `DE/FR` means "in one of them, we do not know which".
Gets the files' bytes, hands on rows. These rows beat every other source, so nothing in them is guessed or skipped:
every fault of every file is reported at once, and one fault refuses them all.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Network, ip_network

from enforcer.errors import TableError
from enforcer.geo.address import MAPPED
from enforcer.geo.iso import countries
from enforcer.geo.rows import Input, Origin, Row
from enforcer.geo.special import hard_kind

_CIDR = re.compile(r"[0-9A-Fa-f:.]+(/\d{1,3})?")


class OperatorTable:
    """One parsed file. Made by `read_operator_tables`, which sees all files together."""

    def __init__(self, origin: Origin, rows: list[Row]) -> None:
        self._origin = origin
        self._rows = rows

    @property
    def origin(self) -> Origin:
        return self._origin

    def rows(self) -> Iterator[Row]:
        return iter(self._rows)


class _Fault(ValueError):
    """What is wrong with one line, and what mends it."""


def read_operator_tables(sources: Sequence[Input], name: str = "") -> list[OperatorTable]:
    """`name`: what to call them, where that is not the name of each file. Raises one TableError with a line per fault,
    `file:line: what is wrong; what mends it`."""
    tables: list[OperatorTable] = []
    faults: list[str] = []
    places: dict[tuple[int, int, int], tuple[Row, str]] = {}
    for source in sources:
        rows: list[Row] = []
        try:
            lines = source.data.decode("utf-8-sig").splitlines()
        except UnicodeDecodeError:
            faults.append(f"{source.path}: not UTF-8 text; save it as UTF-8")
            continue
        for number, line in enumerate(lines, 1):
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            place = f"{source.path}:{number}"
            try:
                row = _parse(line)
                earlier, where = places.setdefault((row.version, row.first, row.last), (row, place))
                if earlier.regions != row.regions:
                    raise _Fault(f"the same CIDR has another region at {where}; keep one of them")
            except _Fault as fault:
                faults.append(f"{place}: {fault}")
            else:
                rows.append(row)
        if not rows and not any(fault.startswith(f"{source.path}:") for fault in faults):
            faults.append(f"{source.path}: no rows in it; add one as `cidr,region` or remove the file")
        tables.append(OperatorTable(Origin(name or source.path.name, source.sha256[:12], "", source.sha256), rows))
    if faults:
        raise TableError("\n".join(faults))
    return tables


def _parse(line: str) -> Row:
    cidr, comma, rest = line.partition(",")
    region, _, label = rest.partition(",")
    if not comma:
        raise _Fault("no region; write `cidr,region` or `cidr,region,label`")
    version, first, last = _network(cidr.strip())
    kind = hard_kind(4 if version == 4 else 6, first, last)
    if kind:
        raise _Fault(f"{cidr.strip()} is {kind}, which no table can place in a region; remove the row")
    codes = frozenset(code.strip() for code in region.split("/"))
    for code in sorted(codes):
        if code not in countries():
            raise _Fault(f"{code!r} is no ISO 3166-1 alpha-2 country code; {_suggestion(code)}")
    label = label.strip()
    if not label.isprintable():  # it is shown in terminals and written to records
        raise _Fault("the label holds control characters; write it in plain text")
    return Row(4 if version == 4 else 6, first, last, codes, label)


def _network(text: str) -> tuple[int, int, int]:
    """Address family, first and last address. Netmask notation and IPv4-mapped networks are refused."""
    if not _CIDR.fullmatch(text):
        raise _Fault(f"{text!r} is no CIDR; write it as 203.0.113.0/24 or 2001:db8::/32")
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        raise _Fault(f"{text!r} is no CIDR; write it as 203.0.113.0/24 or 2001:db8::/32") from None
    if network.network_address != type(network.network_address)(text.partition("/")[0]):
        raise _Fault(f"{text} has host bits set; write {network}")
    first, last = int(network.network_address), int(network.broadcast_address)
    if not isinstance(network, IPv4Network) and first >> 32 == MAPPED:
        raise _Fault(f"{text} is IPv4 in IPv6 form; write it as IPv4")
    return network.version, first, last


def _suggestion(code: str) -> str:
    close = difflib.get_close_matches(code.upper(), countries(), 1, 0.5)
    names = {name.upper(): known for known, name in countries().items()}
    if code.upper() in names:
        close = [names[code.upper()]]
    return f"did you mean {close[0]}?" if close else "use a code such as DE, or several as DE/FR"
