"""`enforcer status`: what runs, what is attached, what was counted."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from enforcer.capture import cgroup, programs
from enforcer.capture.programs import Pins
from enforcer.errors import NotRunning
from enforcer.supervisor.client import ControlClient

if TYPE_CHECKING:
    from enforcer.cli.context import Context
    from enforcer.config import Settings


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def status(context: Context, as_json: bool) -> None:
    """Show the running supervisor: generation, workers, executors, programs per hook, counters.

    Without a supervisor it says what is still attached, and ends with exit code 7.
    """
    settings = context.paths()
    try:
        with ControlClient(settings.control_socket) as client:
            answer = client.request({"op": "status"})
    except NotRunning as error:
        raise NotRunning(f"{error}{_left_behind(settings)}") from None
    click.echo(json.dumps(answer, indent=2) if as_json else _text(answer))


def _left_behind(settings: Settings) -> str:
    """What still enforces without a supervisor: executors are refused, not free."""
    try:
        pins = Pins(settings.instance)
        linked = pins.linked()
        counts = programs.attached(pins, cgroup.Cgroups(cgroup.find_mount() / settings.instance))
    except OSError:
        return ""
    if not linked:
        return " (nothing is attached)"
    attached = sum(counts.values())
    return f" ({attached} programs stay attached: executors are refused every connection until then)"


def _text(answer: dict[str, Any]) -> str:
    table, recorder = answer["table"], answer["recorder"]
    lines = [
        f"supervisor  pid {answer['pid']}, up {answer['uptime_seconds']:.0f} s, {_megabytes(answer['resident_bytes'])}",
        f"generation  {answer['generation']}: policies {', '.join(answer['policies']) or 'none, everything is denied'}"
        f" ({answer['policy_hash']})",
        *([f"RELOAD      the last one: {answer['reload_fault']}"] if answer["reload_fault"] else []),
        f"table       {table['version']}: {table['prefixes']['v4']} IPv4 and {table['prefixes']['v6']} IPv6 prefixes",
        *(f"            {source}" for source in table["sources"]),
        f"records     {recorder['database']}, {recorder['head']} rows",
    ]
    if recorder["failing"]:
        lines.append(f"            FAILING, new requests are denied: {recorder['failing']}")
    lines += [f"AWAY        {fault}" for fault in answer["away"]]
    if answer["observing"]:
        lines.append(f"OBSERVE     not refusing what these policies deny: {', '.join(answer['observing'])}")
    lines += [
        f"worker      pid {worker['pid']}, {_megabytes(worker['resident_bytes'])}" for worker in answer["workers"]
    ]
    if answer["worker_restarts"]:
        lines.append(f"            {answer['worker_restarts']} restarts")
    lines += _resolver(answer["resolver"])
    lines += [f"executor    {one['ident']} ({one['user']}), port {one['port']}" for one in answer["executors"]]
    lines += [
        f"attached    {one['cgroup']}, port {', '.join(map(str, one['ports'])) or 'none yet'}"
        for one in answer["attached"]
    ]
    lines += [f"released    {path}: not governed until 'enforcer release --undo'" for path in answer["released"]]
    uplinks = ", ".join(f"{name} {count}" for name, count in answer["uplinks"].items())
    lines.append(f"uplinks     {uplinks or 'none'} (1 per interface is right)")
    programs_line = ", ".join(f"{name} {count}" for name, count in answer["programs"].items())
    lines.append(f"programs    {programs_line} (1 per hook is right)")
    lines.append(f"lsm         {_security(answer['lsm'])}")
    lines += [
        f"programs    on {root}: {len(hooks)} hooks, {'1 each' if set(hooks.values()) == {1} else hooks}"
        for root, hooks in answer["hooks"].items()
    ]
    lines.append(f"flows       {answer['open_flows']} open")
    lines += [f"counter     {name} {value}" for name, value in answer["counters"].items() if value]
    lines += [f"counter     DNS_{name} {value}" for name, value in sorted(answer["resolver"]["counters"].items())]
    return "\n".join(lines)


def _resolver(resolver: dict[str, Any]) -> list[str]:
    if not resolver["upstreams"]:
        return ["resolver    off: executors' questions for names are refused"]
    lines = [
        f"resolver    pid {one['pid']}, {_megabytes(one['resident_bytes'])}, asks {', '.join(resolver['upstreams'])}"
        for one in resolver["processes"]
    ]
    if not lines:
        lines.append("resolver    NOT RUNNING: executors' questions for names are refused until it is back")
    if resolver["restarts"]:
        lines.append(f"            {resolver['restarts']} restarts")
    return lines


def _security(lsm: dict[str, Any]) -> str:
    lacking = [name for name, count in lsm["programs"].items() if not count]
    if len(lacking) == len(lsm["programs"]):
        return "none in force: this kernel refuses them; 'enforcer doctor' says what that leaves open"
    if not lsm["asked"]:
        return "NONE IN FORCE: attached, and the kernel does not ask them; boot with bpf in lsm="
    text = f"{', '.join(name for name, count in lsm['programs'].items() if count)} in force"
    if lacking:
        text += f"; NOT {', '.join(lacking)}, which this kernel refuses"
    return f"{text}; executors may speak to {', '.join(lsm['unix_allow']) or 'no Unix socket of the host'}"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.0f} MB resident"
