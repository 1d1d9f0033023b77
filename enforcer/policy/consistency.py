"""Step 3 of 6, decide: what must hold between the fields of a policy file.

Works on the plain data, before and beside the schema, and skips whatever has the wrong shape (the schema reports that):
so one run names every fault of a file. Hands on (location, message) pairs, never raises.
"""

from __future__ import annotations

from collections.abc import Iterator

from enforcer.policy.compiled import ANY_REGION, HOST_REGION
from enforcer.policy.destinations import parse_network
from enforcer.policy.document import Location, Plain
from enforcer.policy.only import FAMILIES, PROTOCOLS
from enforcer.verdict import PSEUDONYMISE

Fault = tuple[Location, str]

# What an entry of `applies_to` may name, one each.
_AUDIENCE = ("executor", "user", "cgroup", "unit")
# Conditions on what the kernel knows of a destination, and on what it does not.
_KERNEL_KNOWS = ("region", "port")
_PROXY_KNOWS = ("address", "host", "protocol")
# Protocols that are not read.
_UNREAD = ("opaque", "tls")


def consistency_faults(data: dict[str, Plain], stem: str) -> Iterator[Fault]:
    """Every contradiction in `data`, the content of the file whose name without suffix is `stem`."""
    name = data.get("policy")
    if isinstance(name, str) and name and name != stem:
        yield ("policy",), f"{name!r} is not the file's name; write {stem!r}, or rename the file to {name}.yaml"
    for number, entry in _mappings(data.get("applies_to")):
        if len(entry.keys() & set(_AUDIENCE)) != 1:
            yield (
                ("applies_to", number),
                f"names none or several of {', '.join(_AUDIENCE)}; name one, and add an entry for more",
            )
    names: dict[str, int] = {}
    for number, rule in _mappings(data.get("rules")):
        rule_name = rule.get("name")
        if isinstance(rule_name, str):
            if rule_name in names:
                yield ("rules", number, "name"), f"{rule_name!r} is also rule {names[rule_name] + 1}; rename one"
            names.setdefault(rule_name, number)
        yield from _rule_faults(rule, ("rules", number))
    for number, expectation in _mappings(data.get("expect")):
        wanted = expectation.get("rule")
        if isinstance(wanted, str) and wanted not in names:
            yield ("expect", number, "rule"), f"there is no rule {wanted!r}; name one of this file's rules"


def blank_fields(data: Plain, location: Location = ()) -> Iterator[Location]:
    """Where the file names a key or begins a list item and says nothing: never read as "the default"."""
    if data is None:
        yield location
    elif isinstance(data, dict):
        for key, value in data.items():
            yield from blank_fields(value, (*location, key))
    elif isinstance(data, list):
        for number, item in enumerate(data):
            yield from blank_fields(item, (*location, number))


def _rule_faults(rule: dict[str, Plain], location: Location) -> Iterator[Fault]:
    to, action = rule.get("to"), rule.get("action")
    if not isinstance(to, dict):
        return
    yield from _host_faults(to, (*location, "to"))
    if rule.get("path") == "direct":
        yield from _direct_faults(rule, to, location)
        return
    if not to:
        yield (*location, "to"), 'names nothing; write at least one condition, such as region: ["*"]'
    elif action == "allow" and not to.keys() & {"region", "address"}:
        yield (*location, "to"), "an allow rule must say where; add region or address"
    if action == "allow" and "region" not in to:
        yield from _wide_networks(to.get("address"), (*location, "to", "address"))
    yield from _only_faults(rule, to, location)
    yield from _mask_faults(rule, to, location)


def _mask_faults(rule: dict[str, Plain], to: dict[str, Plain], location: Location) -> Iterator[Fault]:
    mask, protocols = rule.get("mask"), to.get("protocol")
    if mask is None:
        return
    if rule.get("action") == "deny":
        yield (*location, "mask"), "a deny rule has no response to mask; remove mask"
    for unread in _UNREAD:
        if isinstance(protocols, list) and unread in protocols:
            yield (
                (*location, "mask"),
                f"{unread} traffic cannot be masked; give {unread} a rule of its own without mask",
            )
    if not isinstance(mask, dict):
        return
    columns = protocols is None or (isinstance(protocols, list) and bool(PROTOCOLS["SQL"].intersection(protocols)))
    yield from _item_faults(mask, (*location, "mask"), columns=columns)


def _item_faults(mask: dict[str, Plain], location: Location, *, columns: bool) -> Iterator[Fault]:
    """What is of one direction alone. `columns`: requests may have some, as parameters of statements."""
    for number, item in _mappings(mask.get("request")):
        if "column" in item and not columns:
            message = 'requests of its protocols have no columns; name a detector, or {json: "$.path"}'
            yield (*location, "request", number), message
    for number, item in _mappings(mask.get("response")):
        if "query" in item:
            yield (*location, "response", number), "a query is of requests; move it to mask.request"
        if _pseudonymises(item):
            message = "pseudonyms are put into requests, and taken back in answers; use hmac here"
            yield (*location, "response", number), message
    pseudonyms = mask.get("pseudonyms")
    if not isinstance(pseudonyms, dict):
        return
    if not any(_pseudonymises(item) for _, item in _mappings(mask.get("request"))):
        message = "nothing in mask.request is pseudonymised; name the operator pseudonymise there, or remove it"
        yield (*location, "pseudonyms"), message
    if "expires" in pseudonyms and pseudonyms.get("scope", "session") == "session":
        message = "pseudonyms of a session are forgotten with it; remove expires, or write scope: executor"
        yield (*location, "pseudonyms", "expires"), message


def _pseudonymises(item: dict[str, Plain]) -> bool:
    operator = item.get("operator")
    return operator == PSEUDONYMISE or (isinstance(operator, dict) and PSEUDONYMISE in operator)


def _only_faults(rule: dict[str, Plain], to: dict[str, Plain], location: Location) -> Iterator[Fault]:
    """What a clause asks for has to be something that every protocol of the rule can be asked."""
    only, protocols = rule.get("only"), to.get("protocol")
    if not isinstance(only, dict):
        return
    if rule.get("action") == "deny":
        yield (*location, "only"), "a deny rule denies all that it matches; remove only, or turn it into an allow rule"
        return
    yield from _twice(only.get("header"), (*location, "only", "header"))
    for family, keys in FAMILIES.items():
        asked = [key for key in only if key in keys]
        if not asked:
            continue
        fitting = ", ".join(sorted(PROTOCOLS[family]))
        if not isinstance(protocols, list):
            if "protocol" not in to:
                message = (
                    f"{asked[0]} is asked of {family}, and the rule is for every protocol; add protocol: [{fitting}]"
                )
                yield (*location, "only"), message
            continue
        for protocol in protocols:
            if isinstance(protocol, str) and protocol not in PROTOCOLS[family]:
                message = f"{protocol} cannot be asked for {asked[0]}; give {protocol} a rule of its own without only"
                yield (*location, "only"), message


def _twice(header: Plain, location: Location) -> Iterator[Fault]:
    """Names of header fields know no case: of two spellings one would be forgotten."""
    seen: dict[str, str] = {}
    for name in header if isinstance(header, dict) else ():
        first = seen.setdefault(name.lower(), name)
        if first != name:
            yield (*location, name), f"{name!r} is the same field as {first!r}; write one of them"


def _direct_faults(rule: dict[str, Plain], to: dict[str, Plain], location: Location) -> Iterator[Fault]:
    """A direct flow is judged by the kernel, from region and port, and nothing ever reads it."""
    if rule.get("action") == "deny":
        yield (*location, "path"), "a deny rule has no path; remove path"
        return
    for key in _KERNEL_KNOWS:
        if key not in to:
            yield (*location, "to"), f"a direct rule must name regions and ports; add {key}"
    for key in _PROXY_KNOWS:
        if key in to:
            message = f"a direct rule is judged by region and port alone; remove {key}, or path: direct"
            yield (*location, "to", key), message
    regions = to.get("region")
    for number, name in enumerate(regions if isinstance(regions, list) else []):
        if name in (ANY_REGION, HOST_REGION):
            message = f"a direct rule must name places, not {name!r}; write their regions, or remove path: direct"
            yield (*location, "to", "region", number), message
    if rule.get("mask") is not None:
        yield (*location, "mask"), "a direct flow is not read, so nothing is masked; remove mask, or path: direct"
    if rule.get("only") is not None:
        yield (*location, "only"), "a direct flow is not read, so nothing can be asked; remove only, or path: direct"
    if rule.get("record") == "durable":
        message = "a direct flow is recorded after it began; remove record: durable, or path: direct"
        yield (*location, "record"), message


def _host_faults(to: dict[str, Plain], location: Location) -> Iterator[Fault]:
    """The host's own loopback is no place among others."""
    regions = to.get("region")
    if not isinstance(regions, list) or HOST_REGION not in regions:
        return
    if any(name != HOST_REGION for name in regions):
        message = f"{HOST_REGION} is the loopback of this host and no place; give it a rule of its own"
        yield (*location, "region"), message
    if "address" in to:
        yield (*location, "address"), f"{HOST_REGION} is every loopback address of this host; remove address"


def _wide_networks(networks: Plain, location: Location) -> Iterator[Fault]:
    """An allow by address alone also covers unknown regions: it must not be a way to write "everywhere"."""
    for number, text in enumerate(networks if isinstance(networks, list) else []):
        try:
            everything = isinstance(text, str) and parse_network(text).everything
        except ValueError:
            continue
        if everything:
            yield (*location, number), f'{text!r} is every address; name the networks, or allow region: ["*"]'


def _mappings(entries: Plain) -> Iterator[tuple[int, dict[str, Plain]]]:
    for number, entry in enumerate(entries if isinstance(entries, list) else []):
        if isinstance(entry, dict):
            yield number, entry
