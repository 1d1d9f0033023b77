"""`enforcer mask test`: what a rule, or some detectors, would hide of a text, and why. Sends and records nothing."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from collections import Counter
from dataclasses import asdict, dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from enforcer.cli.context import reload_command
from enforcer.cli.mask_message import MEDIA as MESSAGE
from enforcer.cli.mask_message import is_answer, masked_message
from enforcer.errors import EnforcerError, HostError, UsageError
from enforcer.masking import language
from enforcer.masking.detectors import NAMES, unknown
from enforcer.masking.keys import KEY_BYTES, Key, Keys
from enforcer.masking.trial import Trial, Value
from enforcer.policy.compiled import Policy
from enforcer.policy.loader import read_policy
from enforcer.policy.names import all_masks
from enforcer.supervisor import mask_keys
from enforcer.verdict import MaskSpec

if TYPE_CHECKING:
    from enforcer.cli.context import Context

LARGEST = 16 << 20
"""Bytes of a text: it is read, and shown, as a whole."""
CSV = "text/csv"
MEDIA = {
    ".csv": CSV,
    ".http": MESSAGE,
    ".json": "application/json",
    ".jsonl": "application/x-ndjson",
    ".ndjson": "application/x-ndjson",
    ".sse": "text/event-stream",
    ".urlencoded": "application/x-www-form-urlencoded",
}
OTHERWISE = "text/plain"
_COLOUR = "red"
_NOTHING = "(nothing)"
_ESCAPED = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))}


@dataclass(frozen=True)
class Tried:
    """What came of it. `counts`: as in the record, by detector and field. `masked`: what the far side would get."""

    media: str
    values: list[Value]
    counts: dict[str, int]
    masked: str


@click.group()
def mask() -> None:
    """Try out masks."""


@mask.command()
@click.argument("file", metavar="[FILE]", type=click.Path(path_type=Path), default=None, required=False)
@click.option("--policy", "policy_name", default="", metavar="P", help="What this policy masks: its name, or a file.")
@click.option("--rule", default="", metavar="R", help="Only what this rule of it masks.")
@click.option("--detectors", default="", metavar="A,B", help="These detectors, or sets of them, instead or as well.")
@click.option("--media", default="", help="What the text is.  [default: by the name of FILE, else text/plain]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, also on a terminal.")
@click.pass_obj
def test(
    context: Context, *, file: Path | None, policy_name: str, rule: str, detectors: str, media: str, as_json: bool
) -> None:
    """Show what masks make of FILE, or of standard input.

    Of each value: where it is, why it counts as one, what stands there then, and by which operator. Values themselves
    are never printed. Where the output is no terminal it is one JSON object.

    Without --policy and --detectors: what the enabled policies mask, of requests and answers. What FILE is follows from
    its name, as it would from a Content-Type: .json, .jsonl, .sse, .urlencoded, else text. A .csv file is masked like
    the rows of a database: its first line names their columns, or paths of documents (users.contact.email); where `csv`
    columns are named, like a text of that type. A .http file is a message, with its head: of a request what requests
    are masked by, of an answer what answers are.

    Ends with 0 whether something was found or not, with 1 where the text would be refused because it cannot be masked,
    with 2 or 4 where the command line, or a policy, is wrong.
    """
    spec = _spec(context, (policy_name, rule), detectors, (True, True))
    media = media or (MEDIA.get(file.suffix.lower(), OTHERWISE) if file is not None else OTHERWISE)
    message, data = media == MESSAGE, _read(file)
    if message:
        spec = _spec(context, (policy_name, rule), detectors, (is_answer(data), not is_answer(data)))
    if not language.NAMES.isdisjoint(spec.detectors):
        language.use(context.settings().language_model)
    trial = Trial(spec, _keys(context.settings().state) if spec.operators else None)
    table = media.partition(";")[0] == CSV and not any(field.kind == "csv" for field in spec.fields)
    counts: Counter[str] = Counter()
    if message:
        masked = masked_message(trial, data, counts)
    else:
        masked = (_try_table if table else _try_text)(trial, media, data, counts)
    tried = Tried(media, trial.values, dict(counts), _text(masked))
    if as_json or not sys.stdout.isatty():
        click.echo(json.dumps(asdict(tried)))
    else:
        click.echo("\n".join(_lines(tried)))


@mask.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def rotate(context: Context, yes: bool) -> None:
    """Put another key in front of the one that `hmac` uses. Values become other texts from then on.

    In force after a reload of the supervisor. The keys before it stay, for what was sealed with them.
    """
    settings = context.paths()
    state = settings.state
    if not yes and (state / mask_keys.KEY_FILE).exists():
        click.confirm("Whoever compares values by their hmac will find none of the old ones. Go on?", abort=True)
    try:
        keys = mask_keys.rotate(state)
    except OSError as error:
        raise HostError(f"{state}: cannot keep the keys of masks ({error.strerror}); run as root") from error
    click.echo(f"key {keys.keys[0].ident} is in front of {len(keys.keys) - 1} before it")
    click.echo(f"in force after a reload: {reload_command(settings)}")


def _spec(context: Context, named: tuple[str, str], detectors: str, sides: tuple[bool, bool]) -> MaskSpec:
    """What is to be masked: by a policy and a rule of it, and which detectors; of answers, of requests. Raises
    UsageError where that is nothing, PolicyError."""
    policy_name, rule = named
    answers, requests = sides
    listed = tuple(name.strip() for name in detectors.split(",") if name.strip())
    for name in listed:
        if name not in NAMES | language.NAMES:
            raise UsageError(unknown(name))
    if rule and not policy_name:
        raise UsageError("--rule needs its policy; give --policy P as well")
    policies: tuple[Policy, ...] = ()
    if policy_name:
        policies = (_policy(context, policy_name),)
    elif not listed:
        policies = context.policies().policies
    rules = [one for policy in policies for one in policy.rules if not rule or one.name == rule]
    if rule and not rules:
        known = ", ".join(one.name for policy in policies for one in policy.rules)
        raise UsageError(f"policy {policy_name} has no rule {rule!r}; its rules are {known}")
    masks = [side for one in rules for side in (one.mask if answers else None, one.request_mask if requests else None)]
    spec = all_masks([MaskSpec(detectors=listed), *(side for side in masks if side is not None)])
    if not spec:
        which = f"{policy_name}/{rule}" if rule else policy_name or "no enabled policy"
        raise UsageError(f"{which} masks {'anything' if which.startswith('no ') else 'nothing'}; give --detectors")
    return spec


def _policy(context: Context, name: str) -> Policy:
    path = Path(name)
    if path.suffix != ".yaml":
        path = context.settings().policy_dir / f"{name}.yaml"
    return read_policy(path, context.vocabulary()).policy


def _read(file: Path | None) -> bytes:
    """The text. Raises UsageError where there is none to read."""
    try:
        if file is None:
            if sys.stdin is None:
                raise UsageError("standard input is closed; name a FILE")
            if sys.stdin.isatty():
                click.echo("the text comes from here; end it with Ctrl-D", err=True)
            data = sys.stdin.buffer.read(LARGEST + 1)
        else:
            with file.open("rb") as stream:
                data = stream.read(LARGEST + 1)
    except OSError as error:
        raise UsageError(f"{file or 'standard input'}: {error.strerror}; name a file that can be read") from error
    if len(data) > LARGEST:
        raise UsageError(f"{file or 'standard input'} has more than {LARGEST >> 20} MiB; give a part of it")
    return data


# --- trying


def _try_text(trial: Trial, media: str, data: bytes, counts: Counter[str]) -> bytes:
    return trial.text(media).feed(data, True, counts)


def _try_table(trial: Trial, media: str, data: bytes, counts: Counter[str]) -> bytes:  # noqa: ARG001 - a table's
    """Like the rows of a database. Raises UsageError where it is no table."""
    try:
        head, *rows = csv.reader(io.StringIO(_text(data), newline=""), strict=True)
    except (csv.Error, ValueError) as error:
        raise UsageError(f"this is no table ({error}); give --media text/plain") from error
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n" if b"\r\n" in data else "\n")
    writer.writerow(head)
    for number, row in enumerate(rows, 2):
        if len(row) != len(head):
            raise UsageError(f"row {number} has {len(row)} cells, the first has {len(head)}; give each row as many")
        cells: list[bytes | None] = [cell.encode("utf-8", "surrogateescape") for cell in row]
        masked = trial.rows(tuple(head), cells, (False,) * len(row), counts) or cells
        writer.writerow([_text(cell or b"") for cell in masked])
    return out.getvalue().encode("utf-8", "surrogateescape")


def _keys(state: Path) -> Keys:
    """Those of this deployment; where they cannot be read, one of chance."""
    try:
        return mask_keys.read(state) if (state / mask_keys.KEY_FILE).exists() else Keys((Key(os.urandom(KEY_BYTES)),))
    except (OSError, EnforcerError):
        return Keys((Key(os.urandom(KEY_BYTES)),))


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


# --- printing


def _lines(tried: Tried) -> list[str]:
    places = max((len(value.place) for value in tried.values), default=0)
    names = max((len(value.found) for value in tried.values), default=0)
    lines = [
        f"{click.style(value.place.ljust(places), dim=True)}  {click.style(value.found.ljust(names), bold=True)}  "
        f"{click.style(_printable(value.shown) or _NOTHING, fg=_COLOUR)}  {value.why}; {value.operator}"
        for value in tried.values
    ]
    counted = ", ".join(f"{name} {count}" for name, count in sorted(tried.counts.items())) or "nothing to hide"
    return [*lines, f"{tried.media}: {counted}", "", _coloured(tried).rstrip("\n")]


def _printable(text: str) -> str:
    """In one line, and without what a terminal would obey."""
    return text.translate(_ESCAPED).encode("utf-8", "backslashreplace").decode()


def _coloured(tried: Tried) -> str:
    """What is masked, with what took the place of values in colour."""
    taken = bytearray(len(tried.masked))
    looked: dict[str, int] = {}
    for shown in filter(None, (value.shown for value in tried.values)):
        begin = tried.masked.find(shown, looked.get(shown, 0))
        while begin >= 0 and any(taken[begin : begin + len(shown)]):
            begin = tried.masked.find(shown, begin + 1)
        if begin >= 0:
            looked[shown] = begin + len(shown)
            taken[begin : looked[shown]] = b"\1" * len(shown)
    parts = []
    for hidden, run in groupby(zip(tried.masked, taken, strict=True), itemgetter(1)):
        piece = _block("".join(sign for sign, _ in run))
        parts.append(click.style(piece, fg=_COLOUR) if hidden else piece)
    return "".join(parts)


def _block(text: str) -> str:
    return "\n".join(map(_printable, text.replace("\r\n", "\n").split("\n")))
