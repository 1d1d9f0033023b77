"""Step 3 of 6, decide: policies as the engine reads them: flat, frozen, regions expanded, networks as integers.

The supervisor compiles them from files and sends them to the workers as JSON, so that workers need neither YAML nor
pydantic. An empty tuple or set means that the rule says nothing on the matter; the schema refuses empty lists.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Any

from enforcer.errors import PolicyError
from enforcer.policy.destinations import Network, parse_network
from enforcer.policy.only import Only
from enforcer.verdict import Action, Column, Field, JsonPath, Masked, MaskSpec, Operator, Pseudonyms

ANY_REGION = "*"
# The host's own loopback: no place, so it stands alone in a rule, and no other word reaches it.
HOST_REGION = "HOST"
# 48 bits: enough to tell generations apart in a record and short enough to read aloud.
GENERATION_DIGITS = 12


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. `region_words`: regions as written; `regions`: the ISO codes they stand for (`*` adds none).

    `hosts`: exact names and `suffixes`: `.suffix` texts, A-labels. `ports`: inclusive ranges. `mask`, `request_mask`:
    what is hidden in answers and in requests. `durable`: the exchange's row is committed before its bytes go on.
    `direct`: neither read nor masked, in the kernel where that is possible. `only`: what each exchange has to be.
    """

    name: str
    action: Action
    region_words: tuple[str, ...] = ()
    regions: frozenset[str] = frozenset()
    networks: tuple[Network, ...] = ()
    hosts: frozenset[str] = frozenset()
    suffixes: tuple[str, ...] = ()
    ports: tuple[tuple[int, int], ...] = ()
    protocols: frozenset[str] = frozenset()
    mask: MaskSpec = field(default_factory=MaskSpec)
    durable: bool = False
    direct: bool = False
    request_mask: MaskSpec = field(default_factory=MaskSpec)
    only: Only | None = None

    @property
    def any_region(self) -> bool:
        return ANY_REGION in self.region_words

    @property
    def loopback(self) -> bool:
        """Is it for the host's own loopback, and for nothing else?"""
        return HOST_REGION in self.region_words


@dataclass(frozen=True, slots=True)
class Policy:
    """One enabled file. `observe`: its denials are recorded and not enforced. It applies to executors that a glob of
    `executors` names, to those started as one of `users`, and to those at or below a cgroup that `cgroups` names."""

    name: str
    observe: bool
    executors: tuple[str, ...]
    users: frozenset[str]
    rules: tuple[Rule, ...]
    cgroups: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PolicySet:
    """All enabled policies in order. `generation` names this content: the start of its SHA-256, in hex."""

    policies: tuple[Policy, ...]
    generation: str

    @classmethod
    def of(cls, policies: tuple[Policy, ...]) -> PolicySet:
        canonical = json.dumps([_policy_to_plain(policy) for policy in policies], sort_keys=True)
        return cls(policies, hashlib.sha256(canonical.encode()).hexdigest()[:GENERATION_DIGITS])

    def cgroup_patterns(self) -> tuple[str, ...]:
        """The cgroups that attached mode takes over: every pattern once, in the order of the policies."""
        return tuple(dict.fromkeys(pattern for policy in self.policies for pattern in policy.cgroups))

    def to_json(self) -> str:
        plain = {"generation": self.generation, "policies": [_policy_to_plain(policy) for policy in self.policies]}
        return json.dumps(plain, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> PolicySet:
        """The inverse of `to_json`. Raises PolicyError where the text is damaged or its generation does not fit."""
        try:
            plain = json.loads(text)
            policies = cls.of(tuple(_policy_from_plain(policy) for policy in plain["policies"]))
            intact = policies.generation == plain["generation"]
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
            intact = False
        if not intact:
            raise PolicyError(["policy set: damaged on its way to the worker; restart the enforcer"])
        return policies


def _policy_to_plain(policy: Policy) -> dict[str, Any]:
    return {
        "name": policy.name,
        "observe": policy.observe,
        "executors": list(policy.executors),
        "users": sorted(policy.users),
        "cgroups": list(policy.cgroups),
        "rules": [_rule_to_plain(rule) for rule in policy.rules],
    }


def _policy_from_plain(plain: dict[str, Any]) -> Policy:
    return Policy(
        name=plain["name"],
        observe=plain["observe"],
        executors=tuple(plain["executors"]),
        users=frozenset(plain["users"]),
        cgroups=tuple(plain["cgroups"]),
        rules=tuple(_rule_from_plain(rule) for rule in plain["rules"]),
    )


def _rule_to_plain(rule: Rule) -> dict[str, Any]:
    return {
        "name": rule.name,
        "action": rule.action.value,
        "region_words": list(rule.region_words),
        "regions": sorted(rule.regions),
        "networks": [network.text for network in rule.networks],
        "hosts": sorted(rule.hosts),
        "suffixes": list(rule.suffixes),
        "ports": [list(ports) for ports in rule.ports],
        "protocols": sorted(rule.protocols),
        "mask": _mask_to_plain(rule.mask),
        "request_mask": _mask_to_plain(rule.request_mask),
        "durable": rule.durable,
        "direct": rule.direct,
        "only": None if rule.only is None else rule.only.to_plain(),
    }


def _rule_from_plain(plain: dict[str, Any]) -> Rule:
    return Rule(
        name=plain["name"],
        action=Action(plain["action"]),
        region_words=tuple(plain["region_words"]),
        regions=frozenset(plain["regions"]),
        networks=tuple(parse_network(text) for text in plain["networks"]),
        hosts=frozenset(plain["hosts"]),
        suffixes=tuple(plain["suffixes"]),
        ports=tuple((low, high) for low, high in plain["ports"]),
        protocols=frozenset(plain["protocols"]),
        mask=_mask_from_plain(plain["mask"]),
        request_mask=_mask_from_plain(plain["request_mask"]),
        durable=plain["durable"],
        direct=plain["direct"],
        only=None if plain["only"] is None else Only.from_plain(plain["only"]),
    )


def _mask_to_plain(mask: MaskSpec) -> dict[str, Any]:
    return {
        "detectors": list(mask.detectors),
        "columns": [column.pattern for column in mask.columns],
        "json_paths": [path.path for path in mask.json_paths],
        "fields": [[field.kind, field.name] for field in mask.fields],
        "operators": [[_masked_to_plain(masked), asdict(operator)] for masked, operator in mask.operators],
        "pseudonyms": None if mask.pseudonyms is None else asdict(mask.pseudonyms),
    }


def _mask_from_plain(plain: dict[str, Any]) -> MaskSpec:
    return MaskSpec(
        tuple(plain["detectors"]),
        tuple(Column(pattern) for pattern in plain["columns"]),
        tuple(JsonPath(path) for path in plain["json_paths"]),
        tuple(Field(kind, name) for kind, name in plain["fields"]),
        tuple((_masked_from_plain(*masked), _operator(operator)) for masked, operator in plain["operators"]),
        None if plain["pseudonyms"] is None else Pseudonyms(**plain["pseudonyms"]),
    )


def _masked_to_plain(masked: Masked) -> list[str]:
    match masked:
        case str():
            return ["detector", masked]
        case Column():
            return ["column", masked.pattern]
        case JsonPath():
            return ["json", masked.path]
        case Field():
            return [masked.kind, masked.name]


def _masked_from_plain(kind: str, name: str) -> Masked:
    match kind:
        case "detector":
            return name
        case "column":
            return Column(name)
        case "json":
            return JsonPath(name)
        case _:
            return Field(kind, name)


def _operator(plain: dict[str, Any]) -> Operator:
    return Operator(**{**plain, "bounds": tuple(plain["bounds"])})
