"""`enforcer sessions`: what executors asked for, what was decided, what came of it, and whether the record holds.

Recorded text comes from hostile sides and is printed on an operator's terminal: every character that a terminal acts on
is escaped in tables and pages, and JSON is pure ASCII.
"""

from __future__ import annotations

import json
import re
import time
import unicodedata
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import click

from enforcer.errors import RecordError, UsageError
from enforcer.recording.reader import Filter, Reader, Record
from enforcer.recording.rows import DIRECT, DNS
from enforcer.recording.verify import Report, verify
from enforcer.verdict import Action

_PATHS = {DIRECT: "direct: judged in the kernel, not read", DNS: "resolver: what was asked for, and told"}
TABLE_WIDTH = 120  # columns; also when piped, so that output does not depend on where it goes
_COLUMNS = (
    "ID", "TIME (UTC)", "EXECUTOR", "VERDICT", "PROTOCOL", "DESTINATION", "REGION", "RULE", "EXCHANGES", "MASKED",
)  # fmt: skip
_SHRINKABLE = (2, 4, 5, 6, 7)  # executor, protocol, destination, region, rule: cells whose end may be left out
_NARROWEST = 4
_LARGEST = 2**63 - 1  # of an integer in SQLite
# A country code, doubt, or a cloud region: what stands in a row. Groups are policies' words.
_REGION = re.compile(r"[A-Z]{2}|\?|[a-z]+/[a-z0-9-]+").fullmatch
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
# Control, format (bidirectional overrides), surrogate, private, unassigned, and the separators of lines and paragraphs.
_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


class _Paths(Protocol):
    @property
    def database(self) -> Path: ...


class Context(Protocol):
    """What the command group hands to its commands."""

    def paths(self) -> _Paths: ...


@click.group()
def sessions() -> None:
    """What executors sent, and what was decided."""


@sessions.command("list", short_help="List sessions, newest first.")
@click.option("--executor", help="Only this executor.")
@click.option(
    "--action",
    type=click.Choice([action.value for action in Action]),
    help="Only this verdict; deny includes sessions of which an exchange was denied.",
)
@click.option("--region", help="Only destinations that may lie in this country or cloud region, such as DE.")
@click.option("--protocol", help="Only this protocol, such as postgres.")
@click.option("--since", help="Opened since: 15m, 2h, 3d, or a UTC time such as 2025-11-22 or 2025-11-22T06:00:00.")
@click.option(
    "--limit", type=click.IntRange(1, 10**9), metavar="N", default=50, show_default=True, help="At most so many."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def list_sessions(
    context: Context,
    *,
    executor: str | None,
    action: str | None,
    region: str | None,
    protocol: str | None,
    since: str | None,
    limit: int,
    as_json: bool,
) -> None:
    """List sessions, newest first.

    VERDICT `observed` is a denial that passed because its policy only observes.
    """
    if region is not None and not _REGION(region := region if "/" in region else region.upper()):
        raise UsageError(f"--region {region!r} is no country; give a code such as DE, of a group each member by itself")
    wanted = Filter(executor, action, region, protocol, _since(since, time.time_ns()), limit)
    with Reader(context.paths().database) as reader:
        found = reader.sessions(wanted)
    if as_json:
        _print_json(found)
        return
    for line in table(_COLUMNS, [_list_row(record) for record in found]):
        click.echo(line)


@sessions.command("show", short_help="Show one session and its exchanges.")
@click.argument("session_id", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def show_session(context: Context, session_id: str, as_json: bool) -> None:
    """Show the session whose id begins with ID: its facts, then every exchange with its exact text.

    Characters that a terminal would act on are shown as \\x1b or \\u202e; --json has them unambiguously.
    """
    with Reader(context.paths().database) as reader:
        session = reader.session(session_id)
    if as_json:
        _print_json(session)
        return
    for line in _session_page(session):
        click.echo(line)


@sessions.command("verify", short_help="Recompute the hash chain.")
@click.argument("path", required=False, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def verify_records(context: Context, path: Path | None, as_json: bool) -> None:
    """Recompute the hash chain of the records (or of the database at PATH) and name the first fault."""
    database = path or context.paths().database
    with suppress(PermissionError):  # of which the reader tells
        if path is not None and not path.is_file():
            raise RecordError(f"{path} is no file; name a copy of sessions.db")
    report = verify(database)
    if as_json:
        _print_json(_report_json(report))
    else:
        for name, count in report.rows.items():
            click.echo(f"{name:<13} {count:>10}")
        click.echo(f"{'rows':<13} {sum(report.rows.values()):>10}")
        click.echo(f"head          {report.head.seq:>10} {report.head.hash.hex()}")
    if report.fault is not None:
        raise RecordError(f"{database} does not verify: {printable(str(report.fault))}; keep the file for examination")
    if not as_json:
        click.echo("the chain is whole: every row is the one its hash was made of, none is missing")


def printable(text: str) -> str:
    """`text` without a character that a terminal acts on: those become \\xNN, \\uNNNN or \\UNNNNNNNN."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        _escaped(character) if unicodedata.category(character) in _UNSAFE else character for character in text
    )


def table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    """Aligned lines within TABLE_WIDTH; where that is too narrow, the widest shrinkable cells end in an ellipsis."""
    cells = [header, *([printable(cell) for cell in row] for row in rows)]
    widths = [max(len(row[at]) for row in cells) for at in range(len(header))]
    while sum(widths) + len(widths) - 1 > TABLE_WIDTH:
        widest = max(_SHRINKABLE, key=widths.__getitem__)
        if widths[widest] <= _NARROWEST:
            break
        widths[widest] -= 1
    lines = []
    for row in cells:
        fitted = (
            cell if len(cell) <= width else cell[: width - 1] + "…" for cell, width in zip(row, widths, strict=True)
        )
        lines.append(" ".join(cell.ljust(width) for cell, width in zip(fitted, widths, strict=True)).rstrip())
    return lines


def _since(text: str | None, now_ns: int) -> int | None:
    """Unix nanoseconds of `15m` before `now_ns`, or of an ISO 8601 time (UTC unless it says otherwise)."""
    if text is None:
        return None
    if age := re.fullmatch(r"(\d{1,9})([smhd])", text):
        return max(0, now_ns - int(age[1]) * _SECONDS[age[2]] * 10**9)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"--since {text!r} is no time; give 15m, 2h, 3d, or 2025-11-22T06:00:00") from None
    seconds = int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
    return min(max(0, seconds * 10**9), _LARGEST)


def _list_row(record: Record) -> tuple[str, ...]:
    exchanges = str(record["exchanges"])
    if record["denied"]:
        exchanges += f" ({record['denied']} denied)"
    return (
        record["id"],
        _time(record["time_ns"])[:19],
        record["executor"],
        _verdict(record),
        record["protocol"] or "-",
        record["destination"],
        record["region"] or record["region_kind"],
        _rule(record),
        exchanges,
        str(record["masked_total"]),
    )


def _session_page(session: Record) -> list[str]:
    end = session["end"]
    user = (
        f" ({session['user']})" if session["user"] else ""
    )  # an attached executor was started as nobody in particular
    process = f"pid {session['pid']}, uid {session['uid']}{user}, {session['exe'] or 'unknown program'}"
    if not session["pid"]:
        process = f"not known of datagrams; the executor was started as uid {session['uid']}{user}"
    place = (session["region_kind"], session["prefix"])
    facts = {
        "session": session["id"],
        "opened": _time(session["time_ns"]) + " UTC",
        "executor": f"{session['executor']} ({session['executor_ident']}, cgroup {session['cgroup']})",
        "process": process,
        "arguments": " ".join(map(_json, session["argv"] or [])) or "-",
        "unit": session["unit"] or "-",
        "destination": session["destination"] + (f" ({session['host']})" if session["host"] else ""),
        "region": f"{session['region'] or 'unknown'} ({', '.join(filter(None, place))})",
        "table": f"{session['table_source']} {session['table_version']}".strip(),
        "path": _PATHS.get(session["protocol"], "proxy"),
        "protocol": session["protocol"] or "-",
        "verdict": f"{_verdict(session)}, rule {_rule(session)}, generation {session['generation']}",
        "reason": session["reason"] + (f": {session['detail']}" if session["detail"] else ""),
        "ended": "not yet" if end is None else f"{_time(end['time_ns'])} UTC, {end['cause']}, {_traffic(end)}",
        "row": f"{session['seq']}, hash {session['hash']}",
    }
    lines = [f"{name:<12} {printable(value)}" for name, value in facts.items()]
    for exchange in session["exchanges"]:
        lines += ["", *_exchange_lines(exchange)]
    return lines


def _exchange_lines(exchange: Record) -> list[str]:
    head = f"#{exchange['exchange']} {_time(exchange['time_ns'])} {exchange['protocol']} {exchange['operation']}"
    lines = [printable(f"{head}: {_verdict(exchange)}, rule {_rule(exchange)}, {exchange['reason']}")]
    lines += [f"    {printable(line)}" for line in exchange["text"].split("\n")]
    if exchange["cut_bytes"] is not None:
        lines.append(f"    [cut here: {exchange['cut_bytes']} bytes in all, SHA-256 {exchange['cut_sha256']}]")
    notes = [
        ("detail", exchange["detail"]),
        ("params", ", ".join("NULL" if value is None else _json(value) for value in exchange["params"])),
        ("facts", ", ".join(f"{name}={_json(value)}" for name, value in exchange["facts"].items())),
        ("outcome", _outcome(exchange)),
        ("masked", ", ".join(f"{name} {count}" for name, count in (exchange["masked"] or {}).items())),
    ]
    return lines + [f"  {name:<8} {printable(value)}" for name, value in notes if value]


def _outcome(exchange: Record) -> str:
    if exchange["status"] is None:
        return "none recorded"
    rows = "" if exchange["rows"] is None else f", {exchange['rows']} rows"
    return f"{exchange['status']}{' (failed)' if exchange['failed'] else ''}{rows}, {_traffic(exchange)}"


def _traffic(record: Record) -> str:
    return f"{record['bytes_up']} bytes up, {record['bytes_down']} down, {record['duration_ns'] / 1e6:.1f} ms"


def _verdict(record: Record) -> str:
    return "observed" if record["observed"] else str(record["action"])


def _rule(record: Record) -> str:
    return f"{record['policy']}/{record['rule']}" if record["rule"] else "-"


def _time(time_ns: int) -> str:
    """`2025-11-22 06:00:00.123456` in UTC; the bare number where a damaged row holds what no calendar does."""
    try:
        moment = datetime.fromtimestamp(time_ns // 10**9, UTC)
    except (ValueError, OverflowError, OSError):
        return f"{time_ns} ns"
    return f"{moment:%Y-%m-%d %H:%M:%S}.{time_ns % 10**9 // 1000:06}"


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2))


def _report_json(report: Report) -> dict[str, Any]:
    fault = report.fault
    return {
        "rows": report.rows,
        "head": {"seq": report.head.seq, "hash": report.head.hash.hex()},
        "fault": None
        if fault is None
        else {"kind": fault.kind.value, "seq": fault.seq, "table": fault.table, "what": fault.what},
    }
