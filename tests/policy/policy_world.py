"""A small vocabulary, a small table of regions, and short ways to write policies and flows for the policy tests.

The region facts are those of the real tables for these addresses; the special kinds are those of the IANA registries.
"""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

from enforcer.flow import Address, Endpoint, Executor, Flow, Region
from enforcer.policy.compiled import PolicySet
from enforcer.policy.loader import load_policies
from enforcer.policy.vocabulary import Vocabulary

# The 27 member states of the EU, and Iceland, Liechtenstein and Norway (Agreement on the EEA).
EEA = frozenset(
    "AT BE BG CY CZ DE DK EE ES FI FR GR HR HU IE IS IT LI LT LU LV MT NL NO PL PT RO SE SI SK".split()  # noqa: SIM905
)
ADEQUATE = frozenset({"CH", "GB", "JP", "KR", "NZ"})
GROUPS = {"EEA": EEA, "ADEQUATE": ADEQUATE}
CODES = EEA | ADEQUATE | {"US", "RU", "CN", "BR"}

PLACES = {
    "3.120.0.1": ("DE", "3.120.0.0/14"),
    "3.120.0.10": ("DE", "3.120.0.0/14"),
    "51.38.0.1": ("FR", "51.38.0.0/16"),
    "8.8.8.8": ("US", "8.8.8.0/24"),
    "52.0.0.10": ("US", "52.0.0.0/12"),
    "77.88.8.8": ("RU", "77.88.8.0/24"),
    "13.112.0.1": ("JP", "13.112.0.0/14"),
    "2a05:d014::1": ("DE", "2a05:d014::/36"),
}
KINDS = {
    "10.0.0.1": "private",
    "127.0.0.1": "loopback",
    "::1": "loopback",
    "169.254.169.254": "metadata",
    "169.254.7.7": "link-local",
    "fe80::1": "link-local",
    "224.0.0.1": "multicast",
    "192.0.2.1": "documentation",
    "198.18.0.1": "reserved",
}


def expand(name: str) -> frozenset[str]:
    if name in GROUPS:
        return GROUPS[name]
    if name in CODES:
        return frozenset({name})
    raise ValueError(f"unknown region {name!r}; use an ISO 3166-1 code or a group")


def check_json_path(path: str) -> object:
    if not path.startswith("$"):
        raise ValueError(f"{path!r} does not begin with '$'; write a path such as $.a.b")
    return path


VOCABULARY = Vocabulary(
    regions=expand,
    protocols=frozenset({"http", "tls", "postgres", "mysql", "mongodb", "redis", "opaque"}),
    detectors=frozenset(
        {"credit_card", "date_of_birth", "email", "iban", "ip_address", "person_id", "phone", "secrets", "us_ssn"}
    ),
    check_json_path=check_json_path,
)


def lookup(address: Address) -> Region:
    text = str(address)
    if text in PLACES:
        code, prefix = PLACES[text]
        return Region(frozenset({code}), "country", prefix, "test table 1")
    return Region(frozenset(), KINDS.get(text, "unknown"), f"{text}/{address.max_prefixlen}", "test table 1")


def flow(
    address: str = "3.120.0.1",
    port: int = 5432,
    *,
    executor: str = "any",
    user: str = "",
    cgroup: str = "",
    regions: str | None = None,
    kind: str = "country",
) -> Flow:
    """A flow to `address`, in the region of the table above, or in `regions` (space-separated) of kind `kind`."""
    parsed = ip_address(address)
    region = lookup(parsed) if regions is None else Region(frozenset(regions.split()), kind, f"{address}/24", "test")
    who = Executor("executor-1", executor, 1000, user, 1, cgroup, "attached" if cgroup else "isolated")
    return Flow(who, Endpoint(parsed, port), region, cookie=1, pid=2, uid=1000, opened_ns=3)


def write_policy(folder: Path, text: str, name: str = "test") -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def load(folder: Path, *rules: str, head: str = "") -> PolicySet:
    """The policy `test` with `rules`, each a YAML flow mapping without its braces, e.g. `name: a, to: {...}`."""
    body = "\n".join(f"  - {{{rule}}}" for rule in rules)
    return load_policies([write_policy(folder, f"policy: test\n{head}\nrules:\n{body}\n")], VOCABULARY)
