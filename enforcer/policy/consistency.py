"""Step 3 of 6, decide: what must hold between the fields of a policy file.

Works on the plain data, before and beside the schema, and skips whatever has the wrong shape (the schema reports that):
so one run names every fault of a file. Hands on (location, message) pairs, never raises.
"""

from __future__ import annotations

from collections.abc import Iterator

from enforcer.policy.destinations import parse_network
from enforcer.policy.document import Location, Plain

Fault = tuple[Location, str]


def consistency_faults(data: dict[str, Plain], stem: str) -> Iterator[Fault]:
    """Every contradiction in `data`, the content of the file whose name without suffix is `stem`."""
    name = data.get("policy")
    if isinstance(name, str) and name and name != stem:
        yield ("policy",), f"{name!r} is not the file's name; write {stem!r}, or rename the file to {name}.yaml"
    for number, entry in _mappings(data.get("applies_to")):
        if len({"executor", "user"} & entry.keys()) != 1:
            yield (
                ("applies_to", number),
                "names neither or both of executor and user; name one, and add an entry for more",
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
    if not to:
        yield (*location, "to"), 'names nothing; write at least one condition, such as region: ["*"]'
    elif action == "allow" and not to.keys() & {"region", "address"}:
        yield (*location, "to"), "an allow rule must say where; add region or address"
    if action == "allow" and "region" not in to:
        yield from _wide_networks(to.get("address"), (*location, "to", "address"))
    if rule.get("mask") is None:
        return
    if action == "deny":
        yield (*location, "mask"), "a deny rule has no response to mask; remove mask"
    protocols = to.get("protocol")
    if isinstance(protocols, list) and "opaque" in protocols:
        yield (*location, "mask"), "opaque traffic cannot be masked; give opaque a rule of its own without mask"


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
