"""Step 3 of 6, decide: the shape of a policy file, as frozen pydantic models that refuse every unknown key.

Models judge one field at a time; what must hold between fields is in `consistency.py`, so that a fault in one field
never hides another. Validate with a `Vocabulary` as context. Messages read `what is wrong; what mends it`.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, ValidationInfo

from enforcer.flow import Endpoint, Mode
from enforcer.policy.cgroups import parse_cgroup_path, parse_cgroup_pattern, parse_unit
from enforcer.policy.compiled import ANY_REGION, HOST_REGION
from enforcer.policy.destinations import Network, parse_endpoint, parse_host, parse_network, parse_ports
from enforcer.policy.masks import MaskItem, named_twice, parse_duration, parse_item
from enforcer.policy.paths import parse_template
from enforcer.policy.vocabulary import Vocabulary
from enforcer.policy.words import text
from enforcer.verdict import Pseudonyms

NO_RULES = "would deny everything; write one deny rule if that is meant"
_NAME = re.compile(r"[a-z0-9-]+")
# RFC 9110: a token names a method (section 9.1) and a field (5.1).
_METHOD = re.compile(r"[A-Z][A-Z-]*")
_HEADER = re.compile(r"[A-Za-z0-9-]+")
_MEDIA_GLOB = re.compile(r"[a-z0-9*!#$&^_.+-]+/[a-z0-9*!#$&^_.+-]+")
_GRPC = re.compile(r"[A-Za-z0-9_.*]+/[A-Za-z0-9_*]+")


def _not_empty(value: object) -> object:
    # Not Field(min_length=1): pydantic also calls a list too short when it is its items that are wrong.
    if value == []:
        raise ValueError("is empty; name at least one, or remove the key")
    return value


def _some_rules(value: object) -> object:
    if value in ([], None):
        raise ValueError(NO_RULES)
    return value


def _name(value: object) -> str:
    name = text(value)
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is not a name; use lower-case letters, digits and hyphens")
    return name


def _vocabulary(info: ValidationInfo) -> Vocabulary:
    if not isinstance(info.context, Vocabulary):
        raise TypeError("policies are validated with a Vocabulary as context")
    return info.context


def _exact_host(value: object) -> str:
    host = parse_host(text(value))
    if host.startswith("*"):
        raise ValueError(f"{host!r} is not one host; write the exact name a client would ask for")
    return host


def _region(value: object, info: ValidationInfo) -> str:
    name = text(value)
    if name not in (ANY_REGION, HOST_REGION):
        _vocabulary(info).regions(name)
    return name


def _protocol(value: object, info: ValidationInfo) -> str:
    name, known = text(value), _vocabulary(info).protocols
    if name not in known:
        raise ValueError(f"unknown protocol {name!r}; known are {', '.join(sorted(known))}")
    return name


def _masked(value: object, info: ValidationInfo) -> MaskItem:
    return parse_item(value, _vocabulary(info))


def _items(value: tuple[MaskItem, ...]) -> tuple[MaskItem, ...]:
    if named_twice(value):
        raise ValueError("names a detector or field twice; remove one of them")
    return value


def _method(value: object) -> str:
    method = text(value)
    if not _METHOD.fullmatch(method):
        raise ValueError(f"{method!r} is not a method; write it in capitals, such as GET")
    return method


def _header_name(value: object) -> str:
    name = text(value).lower()
    if not _HEADER.fullmatch(name):
        raise ValueError(f"{name!r} is not the name of a header field; use letters, digits and hyphens")
    if name == "host":
        raise ValueError("the host is a condition on the destination; write it below to")
    return name


def _media_glob(value: object) -> str:
    kind = text(value).lower()
    if not _MEDIA_GLOB.fullmatch(kind):
        raise ValueError(f"{kind!r} is not a content type; write one without parameters, such as application/json")
    return kind


def _grpc(value: object) -> str:
    method = text(value)
    if not _GRPC.fullmatch(method):
        raise ValueError(f"{method!r} is not a gRPC method; write package.Service/Method, or package.Service/*")
    return method


def _name_glob(value: object) -> str:
    # Names that hold one are ambiguous in a list of several, and never match.
    name = text(value)
    if "," in name:
        raise ValueError(f"{name!r} holds a comma and never matches; list the names one by one")
    return name


def _column_glob(value: object) -> str:
    column = _name_glob(value)
    if "." not in column and "*" not in column:
        raise ValueError(f'{column!r} is not a column; write "table.column", with * for any table or any column')
    return column


def _statement(value: object) -> str:
    # Of any length, and over several lines.
    if not isinstance(value, str) or not value:
        raise ValueError("is not text; write text")
    return value


def _some_key(value: object) -> object:
    if value == {}:
        raise ValueError("names nothing; write at least one condition, or remove it")
    return value


Text = Annotated[str, PlainValidator(text)]
Name = Annotated[str, PlainValidator(_name)]
RegionName = Annotated[str, PlainValidator(_region)]
ProtocolName = Annotated[str, PlainValidator(_protocol)]
NetworkText = Annotated[Network, PlainValidator(lambda value: parse_network(text(value)))]
HostText = Annotated[str, PlainValidator(lambda value: parse_host(text(value)))]
PortsText = Annotated[tuple[int, int], PlainValidator(lambda value: parse_ports(text(value)))]
EndpointText = Annotated[Endpoint, PlainValidator(lambda value: parse_endpoint(text(value)))]
CgroupGlob = Annotated[str, PlainValidator(lambda value: parse_cgroup_pattern(text(value)))]
CgroupPath = Annotated[str, PlainValidator(lambda value: parse_cgroup_path(text(value)))]
UnitGlob = Annotated[str, PlainValidator(lambda value: parse_unit(text(value)))]
Masked = Annotated[MaskItem, PlainValidator(_masked)]
Duration = Annotated[int, PlainValidator(parse_duration)]
Method = Annotated[str, PlainValidator(_method)]
PathTemplate = Annotated[str, PlainValidator(lambda value: parse_template(text(value)))]
HeaderName = Annotated[str, PlainValidator(_header_name)]
MediaGlob = Annotated[str, PlainValidator(_media_glob)]
GrpcGlob = Annotated[str, PlainValidator(_grpc)]
NameGlob = Annotated[str, PlainValidator(_name_glob)]
CommandGlob = Annotated[str, PlainValidator(lambda value: _name_glob(value).lower())]
ColumnGlob = Annotated[str, PlainValidator(_column_glob)]
Operation = Literal["read", "write", "ddl", "admin", "unknown"]
Statement = Annotated[str, PlainValidator(_statement)]
NotEmpty = BeforeValidator(_not_empty)
Once = AfterValidator(_items)
SomeKey = BeforeValidator(_some_key)


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class AppliesTo(_Model):
    """One of: `executor`, a glob over executor names; `user`, the user an executor was started as; `cgroup`, a glob
    over cgroups, whose trees are attached; `unit`, a systemd unit, read as the glob of its cgroup."""

    executor: Text | None = None
    user: Text | None = None
    cgroup: CgroupGlob | None = None
    unit: UnitGlob | None = None


class Destination(_Model):
    """Where a rule looks: all conditions that are given must hold. At least one is given."""

    region: Annotated[tuple[RegionName, ...], NotEmpty] = ()
    address: Annotated[tuple[NetworkText, ...], NotEmpty] = ()
    host: Annotated[tuple[HostText, ...], NotEmpty] = ()
    port: Annotated[tuple[PortsText, ...], NotEmpty] = ()
    protocol: Annotated[tuple[ProtocolName, ...], NotEmpty] = ()


class PseudonymsEntry(_Model):
    """How far pseudonyms go, and when those of an executor are forgotten."""

    scope: Literal["session", "executor"] = "session"
    expires: Duration = Pseudonyms().expires


class Mask(_Model):
    """What is hidden in answers and in requests; at least one of them."""

    response: Annotated[tuple[Masked, ...], NotEmpty, Once] = ()
    request: Annotated[tuple[Masked, ...], NotEmpty, Once] = ()
    pseudonyms: Annotated[PseudonymsEntry, SomeKey] = PseudonymsEntry()


class GraphqlEntry(_Model):
    type: Annotated[tuple[Literal["query", "mutation", "subscription"], ...], NotEmpty] = ()
    name: Annotated[tuple[NameGlob, ...], NotEmpty] = ()


class OnlyEntry(_Model):
    """What each exchange has to be: of every condition that is given, one entry of its list must hold. The keys belong
    to families of protocols (`only.FAMILIES`)."""

    method: Annotated[tuple[Method, ...], NotEmpty] = ()
    path: Annotated[tuple[PathTemplate, ...], NotEmpty] = ()
    header: Annotated[dict[HeaderName, Annotated[tuple[Text, ...], NotEmpty]], SomeKey] = Field(default_factory=dict)
    content_type: Annotated[tuple[MediaGlob, ...], NotEmpty] = ()
    grpc: Annotated[tuple[GrpcGlob, ...], NotEmpty] = ()
    graphql: Annotated[GraphqlEntry, SomeKey] = GraphqlEntry()
    rpc: Annotated[tuple[NameGlob, ...], NotEmpty] = ()
    tool: Annotated[tuple[NameGlob, ...], NotEmpty] = ()
    model: Annotated[tuple[NameGlob, ...], NotEmpty] = ()
    operation: Annotated[tuple[Operation, ...], NotEmpty] = ()
    command: Annotated[tuple[CommandGlob, ...], NotEmpty] = ()
    table: Annotated[tuple[NameGlob, ...], NotEmpty] = ()
    column: Annotated[tuple[ColumnGlob, ...], NotEmpty] = ()
    function: Annotated[tuple[NameGlob, ...], NotEmpty] = ()
    database: Annotated[tuple[NameGlob, ...], NotEmpty] = ()
    user: Annotated[tuple[NameGlob, ...], NotEmpty] = ()


class RuleEntry(_Model):
    name: Name
    to: Destination
    action: Literal["allow", "deny"]
    only: Annotated[OnlyEntry, SomeKey] | None = None
    mask: Annotated[Mask, SomeKey] | None = None
    record: Literal["durable", "batched"] = "batched"
    path: Literal["proxy", "direct"] = "proxy"


class Expectation(_Model):
    """What the file, judged alone, must answer for one destination, and for one request to it where more is given.
    `rule`: the rule that must be the one to decide."""

    to: EndpointText
    protocol: ProtocolName = "opaque"
    host: Annotated[str, PlainValidator(_exact_host)] | None = None
    method: Text | None = None
    path: Text | None = None
    header: dict[Text, Text] = Field(default_factory=dict)
    content_type: Text | None = None
    grpc: Annotated[str, PlainValidator(_grpc)] | None = None
    graphql: Text | None = None
    rpc: Text | None = None
    tool: Text | None = None
    model: Text | None = None
    statement: Statement | None = None
    operation: Text | None = None
    command: Text | None = None
    table: Text | None = None
    column: Text | None = None
    function: Text | None = None
    database: Text | None = None
    database_user: Text | None = None
    executor: Text = "any"
    user: Text | None = None
    cgroup: CgroupPath | None = None
    verdict: Annotated[Literal["allow", "deny"], Field(alias="is")]
    rule: Name | None = None

    @property
    def mode(self) -> Mode:
        return "attached" if self.cgroup else "isolated"


class PolicyFile(_Model):
    policy: Name
    description: str = ""
    mode: Literal["enforce", "observe"] = "enforce"
    applies_to: Annotated[tuple[AppliesTo, ...], NotEmpty] = (AppliesTo(executor="*"),)
    rules: Annotated[tuple[RuleEntry, ...], BeforeValidator(_some_rules)]
    expect: tuple[Expectation, ...] = ()


# The model that holds the keys below the nearest named field; for "known are ..." in the message on an unknown key.
MODELS: dict[str, type[BaseModel]] = {
    "": PolicyFile,
    "applies_to": AppliesTo,
    "rules": RuleEntry,
    "to": Destination,
    "only": OnlyEntry,
    "graphql": GraphqlEntry,
    "mask": Mask,
    "pseudonyms": PseudonymsEntry,
    "expect": Expectation,
}
