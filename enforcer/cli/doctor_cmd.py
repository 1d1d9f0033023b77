"""`enforcer doctor`: what this host guarantees, promise by promise."""

from __future__ import annotations

import json
import os
import pwd
import signal
import sys
import textwrap
from typing import TYPE_CHECKING, NoReturn

import click

from enforcer.config import Settings
from enforcer.doctor.checks import Finding, Place, Status
from enforcer.doctor.judge import Guarantee, Level
from enforcer.doctor.promises import Mode, Pair, Promise, parse_required
from enforcer.doctor.report import Report, examine
from enforcer.doctor.residual import Tried
from enforcer.errors import ConfigError, HostError, UsageError

if TYPE_CHECKING:
    from enforcer.cli.context import Context

WIDTH = 120  # columns; also when piped, so that output does not depend on where it goes
_PROMISE, _CELL, _NAME = 32, 24, 18
_HEAD = ("configuration", "supervisor")  # what was examined, whatever is wrong with it
_COLOURS = {
    Level.GUARANTEED: "green", Level.IN_PART: "yellow", Level.NOT: "red", Level.CANNOT_TELL: "red",
    Status.MISSING: "red", Status.CANNOT_TELL: "yellow",
}  # fmt: skip


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object with every check.")
@click.option(
    "--require",
    default=None,
    metavar="PROMISES",
    help="End with exit code 6 unless these are guaranteed, such as P1,P3:attached; isolated where no mode is named.",
)
@click.option("--user", "user_name", default="nobody", show_default=True, help="Ordinary user to try as.")
@click.pass_obj
def doctor(context: Context, as_json: bool, require: str | None, user_name: str) -> None:
    """Try what this kernel and host guarantee, promise by promise; isolated and attached mode apart.

    Everything is tried on throw-away cgroups, namespaces and programs, and removed again. No supervisor is needed.
    """
    required = parse_required(require) if require is not None else []
    if os.geteuid() != 0:
        raise HostError("the doctor must be root to try what it reports; use sudo")
    try:
        user = pwd.getpwnam(user_name)
    except KeyError:
        raise UsageError(f"user {user_name!r} does not exist; name one that does with --user") from None
    fault = ""
    try:
        settings = context.settings()
    except ConfigError as error:
        settings, fault = Settings(root=context.root.resolve()), str(error)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)
    report = examine(Place(settings, fault, user))
    click.echo(json.dumps(report.as_json(), indent=2) if as_json else text(report))
    if lacking := report.lacking(required):
        raise HostError("\n".join(f"{one.pair} is {one}; see 'enforcer doctor'" for one in lacking))


def _end(number: int, _frame: object) -> NoReturn:
    """As on Ctrl-C: what was made is removed on the way out."""
    sys.exit(128 + number)


# --- for people


def text(report: Report) -> str:
    host = report.host
    lines = [
        f"Linux {host['kernel']} {host['machine']}, booted {host['boot']}; enforcer {host['enforcer']};"
        f" tried as {host['user']} and as root in {report.seconds:.1f} s",
        *(f"{one.check.name}: {one.outcome.detail}" for one in report.findings if one.check.name in _HEAD),
        "",
    ]
    said: dict[tuple[str, ...], str] = {}
    for promise in Promise:
        lines += _promise(promise, [one for one in report.guarantees if one.pair.promise is promise], said)
    faulty = [one for one in report.findings if one.outcome.status in (Status.MISSING, Status.CANNOT_TELL)]
    resting = [one for one in faulty if one.check.needs or one.check.narrows]
    for heading, group in (
        ("Not ok", resting),
        ("Advice: no promise rests on these", [one for one in faulty if one not in resting]),
    ):
        if group:
            lines += ["", f"{heading} ({len(group)} of {len(report.findings)} checks)", *_faults(group)]
    lines += _ways(report.ways)
    return "\n".join(lines)


def _promise(promise: Promise, guarantees: list[Guarantee], said: dict[tuple[str, ...], str]) -> list[str]:
    """One line where it fits: `P3 Fail closed   isolated: guaranteed   attached: in part: why`. `said`: reasons that
    a line above has, and where."""
    head = f"{promise.name} {promise}".ljust(_PROMISE)
    lines: list[str] = []
    for one in guarantees:
        label = click.style(str(one.level), fg=_COLOURS[one.level], bold=True)
        cell, why = f"{one.pair.mode}: {one.level}", _reason(one, said)
        styled = f"{one.pair.mode}: {label}"
        beside = one.pair.mode is Mode.ATTACHED and guarantees[0].level is Level.GUARANTEED
        indent = _PROMISE + (_CELL if beside else 0)
        body = _wrapped(f"{cell}: {why}" if why else cell, indent)
        body[0] = body[0].replace(cell, styled, 1)
        if beside:
            gap = _CELL - len(f"{guarantees[0].pair.mode}: {guarantees[0].level}")
            lines[-1] += " " * gap + body[0]
        else:
            lines.append((head if not lines else " " * _PROMISE) + body[0])
        lines += [" " * indent + line for line in body[1:]]
    return lines


def _reason(one: Guarantee, said: dict[tuple[str, ...], str]) -> str:
    if one.why in said:
        return f"as {said[one.why]}"
    if len(one.why) > 1:
        said[one.why] = str(one.pair).replace(":", " ")
    return "; ".join(one.why)


def _wrapped(words: str, indent: int) -> list[str]:
    return textwrap.wrap(words, WIDTH - indent, subsequent_indent="  ", break_on_hyphens=False) or [""]


def _faults(findings: list[Finding]) -> list[str]:
    lines = []
    for one in findings:
        status = click.style(str(one.outcome.status).ljust(13), fg=_COLOURS[one.outcome.status])
        detail, *more = _wrapped(one.outcome.detail, _NAME + 15)
        lines.append(f"  {status}{one.check.name.ljust(_NAME)}{detail}")
        lines += [" " * (_NAME + 15) + line for line in more]
        if rests := _rests(one):
            lines.append(" " * (_NAME + 15) + rests)
        if one.outcome.mend:
            lines += [" " * (_NAME + 15) + line for line in _wrapped(f"mend: {one.outcome.mend}", _NAME + 15)]
    return lines


def _rests(one: Finding) -> str:
    """Which promises, those of both modes together."""
    resting = one.check.needs | one.check.narrows
    modes = {promise: [mode for mode in Mode if Pair(promise, mode) in resting] for promise in Promise}
    parts = []
    for words, wanted in (("", list(Mode)), *((f" {mode}", [mode]) for mode in Mode)):
        if names := [promise.name for promise, found in modes.items() if found == wanted]:
            parts.append(f"{' '.join(names)}{words}")
    return f"rests on it: {', '.join(parts)}" if parts else ""


def _ways(ways: list[Tried]) -> list[str]:
    """What a root executor in attached mode could do: open ones with their mend, closed ones by name."""
    still_open = [one for one in ways if one.open is not False]
    lines = ["", f"Ways out for an executor that is root, in attached mode ({len(still_open)} of {len(ways)} open)"]
    for one in still_open:
        state = f" (cannot tell: {one.detail})" if one.open is None else ""
        first, *more = _wrapped(one.way.way + state, _NAME + 2)
        lines.append(f"  {one.way.name.ljust(_NAME)}{first}")
        lines += [" " * (_NAME + 2) + line for line in [*more, *_wrapped(f"mend: {one.way.mend}", _NAME + 2)]]
    if closed := [one for one in ways if one.open is False]:
        lines += _closed(closed)
    return lines


def _closed(ways: list[Tried]) -> list[str]:
    words = ", ".join(f"{one.way.name} ({one.detail.lower()})" for one in ways)
    return [f"  {line}" for line in _wrapped(f"closed here: {words}", 2)]
