"""`enforcer geo`: where an address is and why, which tables say so, newer tables, and how much they leave in doubt."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, date, datetime
from ipaddress import ip_address
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from enforcer.cli.context import reload_command
from enforcer.errors import ConfigError, TableError, UsageError
from enforcer.flow import Address
from enforcer.geo.address import VERSIONS, Version, normalise
from enforcer.geo.answers import Answer, answers
from enforcer.geo.cloud_regions import CloudRegions
from enforcer.geo.compiled import compiled
from enforcer.geo.coverage import Coverage, Share
from enforcer.geo.inventory import Entry, inventory, unplaced_words
from enforcer.geo.rows import Input
from enforcer.geo.sources import Table, read_table
from enforcer.geo.update import Candidate, Change, compare, fetch, refuse
from enforcer.supervisor.generation import geo_sources, geo_store

if TYPE_CHECKING:
    from enforcer.cli.context import Context
    from enforcer.config import GeoSource, Settings
    from enforcer.geo.imports import Imported, Store

_FAMILIES = {4: "IPv4", 6: "IPv6"}
SHIPPED_GROUPS = ("EU", "EEA", "EFTA", "ADEQUATE")
REGIONS_SHOWN = 12
"""Regions of a change that are printed; the largest changes first."""


@click.group()
def geo() -> None:
    """Where addresses are, and the tables that say so."""


@geo.command(short_help="Show the region of an address or name, and why.")
@click.argument("address", metavar="ADDR|NAME")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def lookup(context: Context, address: str, as_json: bool) -> None:
    """Show the region of an address, or of every address of a name, and what each table says of it.

    A name is resolved by this host's own resolver, not by the one of executors.
    """
    table = context.geo()
    inputs = geo_sources(context.settings()).read()
    found = []
    for one in _addresses(address):
        region = table.lookup(one)
        said = answers(inputs, one)
        found.append(
            {
                "address": str(one),
                "region": str(region),
                "regions": sorted(region.regions),
                "kind": region.kind,
                "prefix": region.prefix,
                "source": region.source,
                "answers": [_plain(answer) for answer in said],
            }
        )
    if as_json:
        tables = [{"name": one.name, "version": one.version, "date": one.date} for one in table.origins]
        click.echo(json.dumps({"table": table.version, "tables": tables, "addresses": found}, indent=2))
        return
    click.echo("\n\n".join(_lookup_text(one) for one in found))
    click.echo(f"\ntable    {table.version}")


def _plain(answer: Answer) -> dict[str, Any]:
    return {
        "layer": answer.layer,
        "source": answer.source,
        "regions": list(answer.regions),
        "kind": answer.kind,
        "label": answer.words,
    }


def _addresses(text: str) -> list[Address]:
    try:
        return [normalise(ip_address(text.strip("[]")))]
    except ValueError:
        pass
    if not text or text.startswith("-") or not text.isprintable() or " " in text:
        raise UsageError(f"{text!r} is neither an address nor a name; write 3.120.0.10 or db.example.com")
    try:
        rows = socket.getaddrinfo(text, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a name"
        raise UsageError(f"{text} does not resolve ({reason}); write an address") from error
    return list(dict.fromkeys(normalise(str(row[4][0]).partition("%")[0]) for row in rows))


def _lookup_text(found: dict[str, Any]) -> str:
    lines = [
        f"address  {found['address']}",
        f"region   {found['region']} ({found['kind']})",
        f"prefix   {found['prefix']}",
        f"source   {found['source']}",
    ]
    for answer in found["answers"]:
        said = "/".join(answer["regions"]) or answer["kind"]
        words = f" ({answer['label']})" if answer["label"] else ""
        lines.append(f"says     {said}: {answer['layer']} {answer['source']}{words}")
    return "\n".join(lines)


@geo.command(short_help="List the tables, their versions and ages.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
@click.pass_obj
def sources(context: Context, as_json: bool) -> None:
    """List the tables: version, date, age, size, licence; those that are missing or old are marked."""
    settings = context.settings()
    layers = geo_sources(settings).read().layers()
    entries = inventory(layers, geo_store(settings), settings.geo, _today())
    if as_json:
        click.echo(json.dumps([entry.plain() for entry in entries], indent=2))
        return
    for entry in entries:
        click.echo(_source_text(entry))


def _source_text(entry: Entry) -> str:
    counts = ", ".join(f"{entry.rows[version]} {_FAMILIES[version]}" for version in VERSIONS)
    head = f"{entry.name}  {entry.layer}, version {entry.version or 'none'}"
    lines = [f"{head}, {counts} ranges" if entry.version else head]
    if entry.date:
        lines.append(f"  date     {entry.date}, {entry.age_days} day{'' if entry.age_days == 1 else 's'} ago")
    for name, value in (("from", entry.taken_from), ("licence", entry.licence), ("previous", entry.previous)):
        if value:
            lines.append(f"  {name:8} {value}")
    lines += [f"  warning  {warning}" for warning in entry.warnings]
    return "\n".join(lines)


@geo.command(short_help="Import newer tables.")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option(
    "--file",
    type=click.Path(path_type=Path, exists=True),
    help="Take the table from this file, or from this directory where it is several files.",
)
@click.option("--dry-run", is_flag=True, help="Only say what would change.")
@click.option("--force", is_flag=True, help="Also when more than max_change of it is lost or moved.")
@click.pass_obj
def update(context: Context, names: tuple[str, ...], file: Path | None, dry_run: bool, force: bool) -> None:
    """Import newer tables from where `geo: sources:` says; all of them, or those named.

    A table that is empty, cut short, malformed or too different from the one before is refused, and the old one stays.
    """
    settings = context.settings()
    chosen = _chosen(settings, names)
    if file is not None and len(chosen) != 1:
        raise UsageError("--file is one table; name the source that it is of")
    store = geo_store(settings)
    faults: list[str] = []
    good: list[Imported] = []
    for source in chosen:
        try:
            candidate = _checked(settings, store, source, file.absolute() if file else None, force=force)
        except TableError as error:
            faults += str(error).splitlines()
            continue
        if not dry_run:
            day = _today().isoformat()
            good.append(store.write(source, candidate.data, candidate.origin, candidate.taken_from, day))
    if good:
        _bring_in(settings, store, good)
    if faults:
        raise TableError("\n".join(faults))


def _chosen(settings: Settings, names: tuple[str, ...]) -> list[GeoSource]:
    known = {source.name: source for source in settings.geo.sources}
    missing = [name for name in names if name not in known]
    if missing:
        have = f"known are {', '.join(known)}" if known else "there are none"
        raise ConfigError(f"{missing[0]} is no source in geo.sources of enforcer.yaml; {have}")
    if not known:
        raise ConfigError("geo.sources of enforcer.yaml is empty; add {name: aws, format: aws, url: https://...}")
    return [known[name] for name in names] or list(known.values())


def _checked(settings: Settings, store: Store, source: GeoSource, file: Path | None, *, force: bool) -> Candidate:
    """The newer table, after what it would change was printed. Raises TableError where it is refused."""
    cloud = CloudRegions.load(settings.geo.cloud_regions)
    candidate = fetch(source, file, cloud)
    now = store.current(source.name)
    before = None
    if now is not None and now.form == source.format:
        old = store.table(now)
        before = read_table(old, tuple(Input.read(path, "import it again") for path in old.paths), cloud)
    changes = compare(before, candidate.table)
    click.echo(_change_text(candidate, changes, first=before is None))
    if not force:
        refuse(source.name, changes, settings.geo.max_change)
    return candidate


def _bring_in(settings: Settings, store: Store, made: list[Imported]) -> None:
    """Lets written versions count, once all tables together have been compiled with them."""
    before = [store.current(one.name) for one in made]
    try:
        compiled(geo_sources(settings, _with(settings, store, made)), settings.geo_caches)
    except TableError:
        for one in made:
            store.discard(one)
        raise
    for one in made:
        store.choose(one)
    if [one.ident for one in made] == [one.ident if one else "" for one in before]:
        click.echo("nothing has changed")
    else:
        click.echo(f"it comes into force at the next start or reload: {reload_command(settings)}")


def _with(settings: Settings, store: Store, made: list[Imported]) -> tuple[Table, ...]:
    """The imported tables in the order of the settings, `made` in the place of those in force."""
    instead = {one.name: store.table(one) for one in made}
    tables = ((instead[one.name],) if one.name in instead else store.tables([one]) for one in settings.geo.sources)
    return tuple(chain.from_iterable(tables))


def _change_text(candidate: Candidate, changes: Mapping[Version, Change], *, first: bool) -> str:
    origin = candidate.origin
    dated = f" of {origin.date}" if origin.date else ""
    lines = [f"{candidate.source.name}: version {origin.version}{dated} from {candidate.taken_from}"]
    for version, change in changes.items():
        if not change.before and not change.now:
            continue
        parts = f"{change.now} addresses" if version == 4 else f"{change.now >> 64} networks of /64"
        if not first:
            added = (change.now - change.before + change.removed) / change.before if change.before else 1.0
            parts += f"; added {added:.2%}, lost {change.lost_share:.2%}, moved {change.moved_share:.2%}"
        lines.append(f"  {_FAMILIES[version]}  {parts}")
        if not first:
            lines += _region_lines(change)
    if candidate.unplaced:
        lines.append(f"  warning: {unplaced_words(candidate.unplaced)}")
    return "\n".join(lines)


def _region_lines(change: Change) -> list[str]:
    """The regions that change most. Shares are of what the region had, or of what it has now where it is new."""

    def touched(name: str) -> int:
        before, now, came, left = change.regions[name]
        return abs(now - before) + came + left

    names = sorted((name for name in change.regions if touched(name)), key=touched, reverse=True)
    lines = []
    for name in names[:REGIONS_SHOWN]:
        before, now, came, left = change.regions[name]
        whole = before or now
        added, lost = max(now - came - (before - left), 0), max(before - left - (now - came), 0)
        shares = ", ".join(
            f"{what} {part / whole:.2%}"
            for what, part in (("added", added), ("lost", lost), ("moved here", came), ("moved away", left))
            if part
        )
        lines.append(f"        {name}: {shares}")
    if len(names) > REGIONS_SHOWN:
        lines.append(f"        and {len(names) - REGIONS_SHOWN} more regions")
    return lines


@geo.command(short_help="Go back to the version before the last update.")
@click.argument("name")
@click.pass_obj
def rollback(context: Context, name: str) -> None:
    """Make the version of an imported table count that counted before the last update."""
    settings = context.settings()
    _chosen(settings, (name,))
    store = geo_store(settings)
    before = store.previous(name)
    click.echo(f"{name}: back to version {before.version}, imported on {before.imported}")
    _bring_in(settings, store, [before])


@geo.command(short_help="Show how much of a region is in doubt.")
@click.argument("region", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
@click.pass_obj
def coverage(context: Context, region: str | None, as_json: bool) -> None:
    """Show which share of the addresses of a region, a group or, without REGION, of all shipped groups is in doubt.

    Settled: surely inside. Disputed: tables disagree, and one of them says elsewhere. Doubtful: only one table knows
    the address, or no more than its holder. Rules that allow the region do not cover what is disputed or doubtful.
    """
    found = Coverage(context.geo())
    regions = context.vocabulary().regions
    names = [region] if region else [*SHIPPED_GROUPS, *sorted(code for code in found.regions() if "/" not in code)]
    try:
        rows = [(name, share) for name in names for share in found.inside(regions(name)) if share.all]
    except ValueError as error:
        raise UsageError(str(error)) from None
    if as_json:
        click.echo(json.dumps([{"region": name, **asdict(share)} for name, share in rows], indent=2))
        return
    click.echo(f"{'region':24} {'':4} {'settled':>9} {'disputed':>9} {'doubtful':>9}  addresses")
    for name, share in rows:
        click.echo(_share_text(name, share))
    if not region:
        click.echo("\n".join(_kinds_text(found, version) for version in VERSIONS))


def _share_text(name: str, share: Share) -> str:
    parts = (share.settled, share.disputed, share.doubtful)
    shares = " ".join(f"{part / share.all:9.2%}" for part in parts)
    count = str(share.all) if share.version == 4 else f"{share.all >> 64} networks of /64"
    return f"{name:24} {_FAMILIES[share.version]} {shares}  {count}"


def _kinds_text(found: Coverage, version: Version) -> str:
    kinds = found.by_kind(version)
    whole = sum(kinds.values())
    listed = ", ".join(f"{kind} {size / whole:.2%}" for kind, size in kinds.most_common() if size / whole >= 0.0001)
    return f"{_FAMILIES[version]} address space: {listed}"


def _today() -> date:
    return datetime.now(UTC).date()
