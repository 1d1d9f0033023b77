"""`enforcer probe`: tries every way out that is known, on this host, and tells which ones lead anywhere."""

from __future__ import annotations

import json
import sys
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from enforcer.demo.instance import shipped_policies
from enforcer.errors import HostError, UsageError
from enforcer.privileges import find_user
from enforcer.probe import catalogue, report
from enforcer.probe.inside.kit import Technique
from enforcer.probe.launch import MODES
from enforcer.probe.results import Finding, Result
from enforcer.probe.run import Run

if TYPE_CHECKING:
    from enforcer.cli.context import Context

_COLOURS = {Finding.ESCAPED: "red", Finding.ERROR: "red", Finding.SKIPPED: "yellow", Finding.CONTAINED: "green"}
# What a reader must know about each finding that is not a plain success.
_HEADINGS = {
    Finding.ESCAPED: "Ways out",
    Finding.ERROR: "Faults of the probe itself: they prove nothing",
    Finding.SKIPPED: "Not tried, which proves nothing",
}
_WIDTH = 118


@click.command()
@click.option(
    "--mode",
    "modes",
    type=click.Choice(sorted(MODES)),
    multiple=True,
    help="How executors are governed; both with the option twice.  [default: isolated]",
)
@click.option("--user", default="nobody", show_default=True, help="The ordinary user that tries, beside root.")
@click.option("--only", multiple=True, metavar="GLOB", help="Only techniques or groups of such a name.")
@click.option("--list", "as_list", is_flag=True, help="Show the catalogue and try nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--report", "target", type=click.Path(path_type=Path, dir_okay=False), help="Write a signed report.")
@click.option("--verify", "filed", type=click.Path(path_type=Path, dir_okay=False), help="Check a signed report.")
@click.option("--key", metavar="FINGERPRINT", help="With --verify: the key that must have signed it.")
@click.pass_obj
def probe(
    context: Context,
    *,
    modes: tuple[str, ...],
    user: str,
    only: tuple[str, ...],
    as_list: bool,
    as_json: bool,
    target: Path | None,
    filed: Path | None,
    key: str | None,
) -> None:
    """Try every known way out of an executor on this host, and judge by what the far side received.

    Each technique runs outside first, where it must work, then inside an executor. CONTAINED: nothing arrived. ESCAPED:
    something did. SKIPPED: it does not work outside either, so it proves nothing. Plays in namespaces of its own,
    with an enforcer of its own; an installed one is not touched.

    Exits with 0 only when nothing escaped and nothing failed.
    """
    if key is not None and filed is None:
        raise UsageError("--key says who must have signed a report; name the report with --verify")
    if filed is not None:
        _show_verified(report.verify(filed, key), key)
        return
    techniques = catalogue.select(only)
    if as_list:
        click.echo(_as_json(techniques) if as_json else "\n".join(_listed(techniques)))
        return
    if find_user(user).pw_uid == 0:
        raise UsageError("root tries anyway; name an ordinary user with --user")
    if target is not None and not target.absolute().parent.is_dir():
        raise UsageError(f"cannot write {target}: its directory does not exist; name another file")
    signing = None if target is None else report.host_key(context.paths().state)
    begun = datetime.now(UTC)
    results = _play(modes or ("isolated",), ("root", user), techniques, quiet=as_json)
    body = report.compose(results, begun, datetime.now(UTC))
    click.echo(json.dumps(body, indent=2) if as_json else "\n".join(_table(results, begun)))
    if target is not None and signing is not None:
        _file(target, report.sign(body, signing))
        click.echo(f"signed report: {target}, key {_fingerprint(target)}", err=as_json)
    sys.exit(0 if _passed(results) else 1)


def _play(modes: Sequence[str], users: Sequence[str], techniques: Sequence[Technique], *, quiet: bool) -> list[Result]:
    done = 0

    def progress(result: Result) -> None:
        nonlocal done
        done += 1
        if not quiet and sys.stderr.isatty():
            click.echo(f"\r\033[K{done}: {result.user} {result.technique}", err=True, nl=False)

    results = [
        result
        for mode in modes
        for result in Run(MODES[mode], users, techniques, shipped_policies(), progress).results()
    ]
    if done and not quiet and sys.stderr.isatty():
        click.echo("\r\033[K", err=True, nl=False)
    return results


def _passed(results: Sequence[Result]) -> bool:
    """Nothing escaped, nothing failed, and something was proved: a run in which all was skipped is no pass."""
    findings = {result.finding for result in results}
    return not findings & {Finding.ESCAPED, Finding.ERROR} and Finding.CONTAINED in findings


def _file(path: Path, signed: bytes) -> None:
    try:
        path.write_bytes(signed)
    except OSError as error:
        raise HostError(f"cannot write {path}: {error.strerror}; name another file") from error


def _fingerprint(path: Path) -> str:
    return str(report.verify(path)["key_fingerprint"])


def _table(results: Sequence[Result], begun: datetime) -> Iterator[str]:
    columns = sorted({(result.mode, result.user) for result in results}, key=lambda one: (one[0], one[1] != "root"))
    by_place = {(result.technique, result.mode, result.user): result for result in results}
    width = max(len(result.technique) for result in results)
    yield f"{'':<{width + 4}}" + "".join(f"{f'{mode}, {user}':<20}" for mode, user in columns).rstrip()
    for group, meaning in catalogue.GROUPS.items():
        names = list(dict.fromkeys(result.technique for result in results if result.group == group))
        if names:
            yield click.style(f"{group}", bold=True) + f": {meaning}"
        for name in names:
            cells = [by_place.get((name, *column)) for column in columns]
            yield f"  {name:<{width + 2}}" + "".join(_cell(cell) for cell in cells).rstrip()
    for finding in _HEADINGS:
        yield from _reasons(finding, [result for result in results if result.finding is finding])
    counts = Counter(result.finding for result in results)
    told = ", ".join(f"{counts[finding]} {finding.value}" for finding in Finding)
    yield f"\n{told} ({(datetime.now(UTC) - begun).total_seconds():.0f} s)"


def _cell(result: Result | None) -> str:
    if result is None:
        return f"{'-':<20}"
    return click.style(f"{result.finding.value:<20}", fg=_COLOURS[result.finding])


def _reasons(finding: Finding, results: Sequence[Result]) -> Iterator[str]:
    """Each reason once, with the techniques it holds for."""
    by_reason: dict[str, list[str]] = {}
    for result in results:
        by_reason.setdefault(result.reason, []).append(f"{result.technique} ({result.user})")
    if by_reason:
        yield "\n" + click.style(_HEADINGS[finding], fg=_COLOURS[finding], bold=True)
    for reason, names in by_reason.items():
        yield textwrap.fill(f"{', '.join(names)}: {reason}", _WIDTH, initial_indent="  ", subsequent_indent="    ")


def _listed(techniques: Sequence[Technique]) -> Iterator[str]:
    width = max(len(one.name) for one in techniques)
    group = ""
    for one in techniques:
        if one.group != group:
            group = one.group
            yield click.style(group, bold=True) + f": {catalogue.GROUPS[group]}"
        yield f"  {one.name:<{width}}  {one.tries}"
    yield f"\n{len(techniques)} techniques"


def _as_json(techniques: Sequence[Technique]) -> str:
    rows = [
        {"name": one.name, "group": one.group, "users": one.users, "tries": one.tries, "stopped_by": one.stopped_by}
        for one in techniques
    ]
    return json.dumps(rows, indent=2)


def _show_verified(filed: dict[str, Any], key: str | None) -> None:
    host, counts = filed["host"], filed["counts"]
    click.echo(f"{host['name']}, Linux {host['kernel']}, enforcer {filed['enforcer']['version']}")
    click.echo(f"{filed['begun']} to {filed['ended']}, modes: {', '.join(filed['modes'])}")
    extent = "the whole catalogue" if filed["whole_catalogue"] else "A PART of the catalogue"
    click.echo(f"{extent} of {filed['catalogue']}: " + ", ".join(f"{counts[one]} {one.value}" for one in Finding))
    click.echo(f"unaltered since it was signed by {filed['key_fingerprint']}")
    if key is None:
        click.echo("whose key that is, only a fingerprint you were given tells; compare it with --key")
