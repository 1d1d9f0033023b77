"""`enforcer explain`: how this host would judge a destination, or a question for a name, rule by rule. Sends nothing
and resolves nothing."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import click

from enforcer.cli.explain_name import NameAnswer
from enforcer.errors import UsageError
from enforcer.flow import Endpoint, Executor, Flow
from enforcer.policy.cgroups import parse_cgroup_path
from enforcer.policy.compiled import PolicySet
from enforcer.policy.described import OF_STATEMENTS, STATED, Described, described
from enforcer.policy.destinations import parse_destination
from enforcer.policy.direct import why_proxied
from enforcer.policy.engine import OPAQUE, match, relayed
from enforcer.policy.explain import Explanation, Trial
from enforcer.policy.explain import explain as explain_flow
from enforcer.verdict import Reason, Verdict

if TYPE_CHECKING:
    from enforcer.cli.context import Context

# What most destinations are asked for on; said aloud in the output whenever it is assumed.
ASSUMED_PORT = 443
# Of which a request that is described is one.
REQUESTS = "http"
FACTS = ("grpc", *STATED, "statement", "user")


@dataclass(frozen=True)
class Answer:
    """Everything that is printed. `others`: the verdicts with the protocols that were not asked about. `path`: `direct`
    or `proxy`, and `path_detail`: why not direct although the rule says so; both of the flow as asked about. `asked`:
    what was said of the request."""

    flow: Flow
    host: str | None
    asked: Described
    protocol: str
    port_assumed: bool
    protocol_assumed: bool
    generation: str
    explanation: Explanation
    others: dict[str, Verdict]
    path: str
    path_detail: str


@click.command()
@click.argument("destination", metavar="[DEST]", default="")
@click.option("--name", default="", help="Instead of DEST: whether this name may be asked for, and by which rule.")
@click.option("--protocol", help=f"Protocol the connection carries.  [default: {OPAQUE}]")
@click.option("--host", help="Host that the client names in its request.")
@click.option("--method", help="Method of the request.")
@click.option("--path", "target", help="Path of the request, with or without a query.")
@click.option("--header", "headers", multiple=True, metavar="NAME:VALUE", help="A header field of the request.")
@click.option(
    "--fact",
    "facts",
    multiple=True,
    metavar="NAME=VALUE",
    help=f"What its body says; NAME is one of {', '.join(FACTS)}.",
)
@click.option("--executor", default="any", show_default=True, help="Name of the executor that asks.")
@click.option("--user", default="", help="User that the executor was started as.")
@click.option("--cgroup", default="", help="Cgroup of an attached one, as in /proc/PID/cgroup.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def explain(
    context: Context,
    *,
    destination: str,
    name: str,
    protocol: str | None,
    host: str | None,
    method: str | None,
    target: str | None,
    headers: tuple[str, ...],
    facts: tuple[str, ...],
    executor: str,
    user: str,
    cgroup: str,
    as_json: bool,
) -> None:
    """Show the region of DEST, every rule tried, the first difference of each, and the verdict.

    DEST is ADDR:PORT, [ADDR]:PORT for IPv6, or an address alone (port 443 is assumed). --method, --path, --header and
    --fact describe one request, for rules with `only`; the protocol is http then, unless --protocol says otherwise.
    Of databases --fact statement=SQL is a statement as it is sent.
    """
    if bool(destination) == bool(name):
        raise UsageError("give DEST or --name NAME, one of them")
    known = context.vocabulary().protocols
    if protocol is not None and protocol not in known:
        raise UsageError(f"unknown protocol {protocol!r}; known are {', '.join(sorted(known))}")
    asked = _asked(host, method, target, headers, facts, protocol=protocol)
    if protocol is None and (method or target or headers or facts):
        protocol = REQUESTS
    try:
        cgroup = parse_cgroup_path(cgroup.removeprefix("/")) if cgroup else ""
        who = Executor("explain", executor, 0, user, 0, cgroup, "attached" if cgroup else "isolated")
        if name:
            answered = NameAnswer.to(name, who, context.policies(), context.geo().lookup)
            click.echo(json.dumps(answered.as_plain()) if as_json else "\n".join(_name_lines(answered)))
            return
        address, port = parse_destination(destination)
    except ValueError as error:
        raise UsageError(str(error)) from error
    endpoint = Endpoint(address, port or ASSUMED_PORT)
    flow = Flow(who, endpoint, context.geo().lookup(address), cookie=0, pid=0, uid=0, opened_ns=0)
    policies = context.policies()
    explanation = explain_flow(policies, flow, protocol or OPAQUE, asked.facts, asked)
    path, path_detail = _path(policies, flow, explanation.verdict)
    answer = Answer(
        flow=flow,
        host=host,
        asked=asked,
        protocol=protocol or OPAQUE,
        port_assumed=port is None,
        protocol_assumed=protocol is None,
        generation=policies.generation,
        explanation=explanation,
        others=_others(policies, flow, asked, known) if protocol is None else {},
        path=path,
        path_detail=path_detail,
    )
    click.echo(json.dumps(_as_plain(answer)) if as_json else "\n".join(_as_lines(answer)))


def _asked(
    host: str | None,
    method: str | None,
    target: str | None,
    headers: tuple[str, ...],
    facts: tuple[str, ...],
    *,
    protocol: str | None,
) -> Described:
    """The request that the options describe."""
    if target is not None and not target.startswith("/"):
        raise UsageError(f"{target!r} is not a path; begin it with '/'")
    header = {}
    for text in headers:
        name, colon, value = text.partition(":")
        if not colon or not name.strip():
            raise UsageError(f"{text!r} is not a header field; write NAME:VALUE")
        header[name.strip()] = value.strip()
    stated = {}
    for text in facts:
        name, equals, value = text.partition("=")
        if not equals or name not in FACTS:
            raise UsageError(f"{text!r} is not a fact; write NAME=VALUE, NAME one of {', '.join(FACTS)}")
        stated[name] = value
    if protocol is None and stated.keys() & {*OF_STATEMENTS, "statement", "user"}:
        raise UsageError("statements are of one protocol; say which with --protocol")
    return described(
        host=host,
        method=method,
        path=target,
        header=header,
        grpc=stated.pop("grpc", None),
        statement=stated.pop("statement", None),
        database_user=stated.pop("user", None),
        protocol=protocol or "",
        stated=stated,
    )


def _others(policies: PolicySet, flow: Flow, asked: Described, known: frozenset[str]) -> dict[str, Verdict]:
    """A destination without a protocol is half a question: say what the other answers would be."""
    return {name: match(policies, flow, name, asked.facts).on(asked) for name in sorted(known - {OPAQUE})}


def _path(policies: PolicySet, flow: Flow, verdict: Verdict) -> tuple[str, str]:
    """The way a flow takes, and in words why it is not the direct one that its rule asks for."""
    if not verdict.direct:
        return "proxy", ""
    why = why_proxied(policies, flow.executor, flow.region, flow.destination.port)
    if not why:
        return "direct", ""
    return "proxy", f"{why}; relayed unread" if relayed(policies, flow) else why


def _name_lines(answer: NameAnswer) -> list[str]:
    trials = answer.trials
    places = [_place(trial) for trial in trials]
    width = max(map(len, places), default=0)
    return [
        f"name         {answer.name}",
        f"executor     {_who(answer.executor)}",
        "",
        *([f"rules tried, first match wins (policy generation {answer.generation}):"] if trials else []),
        *(
            f"  {place:{width}}  {trial.action:5}  {_outcome(trial, answer.verdict)}"
            for place, trial in zip(places, trials, strict=True)
        ),
        *([""] if trials else []),
        f"verdict: {_say(answer.verdict)}",
        *(["its addresses are judged when they are dialled"] if answer.verdict.passes else []),
    ]


def _as_lines(answer: Answer) -> list[str]:
    region, executor = answer.flow.region, answer.flow.executor
    trials = answer.explanation.trials
    places = [_place(trial) for trial in trials]
    width = max(map(len, places), default=0)
    return [
        f"destination  {answer.flow.destination}{' (port assumed)' if answer.port_assumed else ''}",
        f"region       {region.names or 'none'} ({region.kind})",
        f"prefix       {region.prefix or 'none'}",
        f"source       {region.source or 'none'}",
        f"executor     {_who(executor)}",
        f"protocol     {answer.protocol}{' (assumed)' if answer.protocol_assumed else ''}",
        *([f"host         {answer.host}"] if answer.host else []),
        *([f"request      {answer.asked.text}"] if answer.asked.text else []),
        *([f"facts        {_said(answer.asked)}"] if _said(answer.asked) else []),
        "",
        f"rules tried, first match wins (policy generation {answer.generation}):"
        if trials
        else "no policy is enabled: every flow is denied",
        *(
            f"  {place:{width}}  {trial.action:5}  {_outcome(trial, answer.explanation.verdict)}"
            for place, trial in zip(places, trials, strict=True)
        ),
        "",
        f"verdict: {_say(answer.explanation.verdict)}",
        *(f"only: {'; '.join(clause.only.words())}" for clause in answer.explanation.clauses),
        *([f"path: {_say_path(answer)}"] if answer.explanation.verdict.direct else []),
        *(f"with --protocol {name}: {_say(verdict)}" for name, verdict in answer.others.items()),
    ]


def _as_plain(answer: Answer) -> dict[str, object]:
    region, executor = answer.flow.region, answer.flow.executor
    return {
        "destination": str(answer.flow.destination),
        "port_assumed": answer.port_assumed,
        "regions": sorted(region.regions),
        "kind": region.kind,
        "prefix": region.prefix,
        "source": region.source,
        "executor": executor.name,
        "user": executor.user,
        "cgroup": executor.cgroup,
        "protocol": answer.protocol,
        "protocol_assumed": answer.protocol_assumed,
        "host": answer.host,
        "request": answer.asked.text,
        "facts": {name: text for name, text in answer.asked.facts.items() if name != "host"},
        "generation": answer.generation,
        "trials": [asdict(trial) for trial in answer.explanation.trials],
        "verdict": _verdict_as_plain(answer.explanation.verdict),
        "only": [word for clause in answer.explanation.clauses for word in clause.only.words()],
        "path": answer.path,
        "path_detail": answer.path_detail,
        "other_protocols": {name: _verdict_as_plain(verdict) for name, verdict in answer.others.items()},
    }


def _verdict_as_plain(verdict: Verdict) -> dict[str, object]:
    return {
        "action": verdict.action.value,
        "reason": verdict.reason.value,
        "policy": verdict.policy,
        "rule": verdict.rule,
        "detail": verdict.detail,
        "durable": verdict.durable,
        "observed": verdict.observed,
        "direct": verdict.direct,
        "masks": verdict.mask.words(),
        "request_masks": verdict.request_mask.words(),
    }


def _who(executor: Executor) -> str:
    user = f", user {executor.user}" if executor.user else ""
    return executor.name + user + (f", cgroup {executor.cgroup}" if executor.cgroup else "")


def _say_path(answer: Answer) -> str:
    if answer.path == "direct":
        return "direct: decided in the kernel, neither read nor masked"
    return f"proxy: {answer.path_detail}"


def _place(trial: Trial) -> str:
    return f"{trial.policy}/{trial.rule}" if trial.rule else trial.policy


def _outcome(trial: Trial, verdict: Verdict) -> str:
    if trial.difference:
        return f"no: {trial.difference}"
    return f"MATCH, and not its only: {verdict.detail}" if verdict.reason is Reason.CLAUSE else "MATCH"


def _said(asked: Described) -> str:
    """Header fields by name, and what was said of the body or the statement."""
    names = [f"header {name.decode()}" for name, _ in asked.fields]
    return ", ".join([*names, *(f"{name} {asked.facts[name]}" for name in STATED if name in asked.facts)])


def _say(verdict: Verdict) -> str:
    by = f"rule {verdict.policy}/{verdict.rule}" if verdict.rule else f"{verdict.reason.value} ({verdict.detail})"
    return "".join(
        (
            f"{verdict.action.value}, {by}",
            f", by its only: {verdict.detail}" if verdict.reason is Reason.CLAUSE else "",
            f", masks {', '.join(verdict.mask.words())}" if verdict.mask else "",
            f", masks {', '.join(verdict.request_mask.words())} in requests" if verdict.request_mask else "",
            ", recorded before it is sent" if verdict.durable else "",
            ", but passes: the policy only observes" if verdict.observed else "",
        )
    )
