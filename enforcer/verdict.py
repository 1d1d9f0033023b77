"""What was decided and why: the answer of step 3, read by everything after it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum


class Action(Enum):
    ALLOW = "allow"
    DENY = "deny"


class Reason(Enum):
    """Why a verdict is what it is. The values are written to the database and shown to users."""

    RULE = "rule"  # a rule matched; `rule` names it
    CLAUSE = "the rule's only clause"  # `rule` would allow it, and its `only` does not hold; `detail` says why
    NO_RULE = "no rule matched"
    UNKNOWN_REGION = "the destination's region is unknown"
    SPECIAL_ADDRESS = "special-purpose address that no rule names"
    PROTOCOL_ERROR = "protocol error"
    UNMASKABLE = "it cannot be masked safely"
    TARGET = "the target of the tunnel is not allowed"
    UNREACHABLE = "the server cannot be reached"
    NO_REQUEST = "closed before a request"
    RECORDER = "the recorder cannot write"
    RESOLVER = "the resolver does not let it through"
    INTERNAL = "internal error"


@dataclass(frozen=True, slots=True)
class Column:
    """Mask a result column, `table.column`, or a field of documents, `collection.path.to.field`; `*` is a wildcard in
    any part, `**` at the end is all that is below (case-insensitive)."""

    pattern: str


@dataclass(frozen=True, slots=True)
class JsonPath:
    """Mask a JSON value by path: `$.a.b`, `$.items[*].card`, `$..ssn` (RFC 9535 subset: child, wildcard,
    descendant, array index)."""

    path: str


@dataclass(frozen=True, slots=True)
class Field:
    """Mask a value by its name: `kind` is `header`, `query`, `form` or `csv`; `*` in `name` is a wildcard (lower
    case, and any case fits)."""

    kind: str
    name: str


@dataclass(frozen=True, slots=True)
class Operator:
    """What is put in the place of a value, by `name`: `redact`, `mask`, `replace`, `hmac`, `nullify`, `generalise` or
    `pseudonymise`.

    `text`: of `replace`; of `generalise` it is `year`, `month` or `network`, or empty for numbers. `first`, `last`:
    letters and digits that `mask` leaves. `bounds`: where the ranges of numbers begin; a single one is their width.
    `alike`: a pseudonym has the form of its value.
    """

    name: str
    text: str = ""
    first: int = 0
    last: int = 0
    bounds: tuple[float, ...] = ()
    alike: bool = False

    def __str__(self) -> str:
        """As in a policy."""
        if self.name == "mask":
            kept = ", ".join(
                f"{word}: {count}" for word, count in (("first", self.first), ("last", self.last)) if count
            )
            return f"mask {{{kept}}}" if kept else "mask"
        if self.bounds:
            bounds = ", ".join(f"{bound:g}" for bound in self.bounds)
            return f"generalise to {bounds if len(self.bounds) == 1 else f'[{bounds}]'}"
        if self.text:
            return f"{self.name} {'to' if self.name == 'generalise' else 'by'} {self.text}"
        return f"{self.name} alike" if self.alike else self.name


Masked = str | Column | JsonPath | Field
"""What an item of a mask names: a detector or a set of them, or a field."""

PSEUDONYMISE = "pseudonymise"


@dataclass(frozen=True, slots=True)
class Pseudonyms:
    """Where pseudonyms are the same ones, and can be taken back: `scope` is `session` or `executor`, which forgets each
    `expires` seconds after it was made."""

    scope: str = "session"
    expires: int = 24 * 3600


@dataclass(frozen=True, slots=True)
class MaskSpec:
    """What a rule masks in one direction: detector names, SQL columns, JSON paths and other fields. Empty: nothing.
    `operators`: what is put in their place, for those of them where the policy says so; the first for an item counts.
    `pseudonyms`: set where one of the operators makes some."""

    detectors: tuple[str, ...] = ()
    columns: tuple[Column, ...] = ()
    json_paths: tuple[JsonPath, ...] = ()
    fields: tuple[Field, ...] = ()
    operators: tuple[tuple[Masked, Operator], ...] = ()
    pseudonyms: Pseudonyms | None = None

    def __bool__(self) -> bool:
        return bool(self.detectors or self.columns or self.json_paths or self.fields)

    def words(self) -> list[str]:
        """Each item in one line, for people, with its operator where it has one."""
        operators = dict(reversed(self.operators))
        items: list[tuple[Masked, str]] = [(name, name) for name in self.detectors]
        items += [(column, column.pattern) for column in self.columns]
        items += [(path, path.path) for path in self.json_paths]
        items += [(field, f"{field.kind} {field.name}") for field in self.fields]
        return [f"{text} ({operators[item]})" if item in operators else text for item, text in items]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The decision on one flow or exchange.

    `observed` is set when the policy is in observe mode: the verdict was a denial, is recorded as one, and
    the traffic passes all the same. `detail` is one line for people, e.g. the first difference of a rule. `direct`: the
    rule asks for no inspection. `mask` is for answers, `request_mask` for what the client says.
    """

    action: Action
    reason: Reason
    policy: str = ""
    rule: str = ""
    detail: str = ""
    mask: MaskSpec = field(default_factory=MaskSpec)
    durable: bool = False
    observed: bool = False
    direct: bool = False
    request_mask: MaskSpec = field(default_factory=MaskSpec)

    @property
    def passes(self) -> bool:
        return self.action is Action.ALLOW or self.observed


@dataclass(frozen=True, slots=True)
class Denial:
    """Everything a native refusal tells the client: what, where, why, and how to ask.

    `session` is the session id that `enforcer sessions show` takes. All fields are plain text without
    control characters; each protocol puts them into its own words. `unreachable`: policy allowed the request, but
    the server could not be reached; the protocol's word for that differs (HTTP 502, SQLSTATE 08001). `exchange`: the
    number of the request in its session, 0 where none is refused.
    """

    destination: str
    region: str
    prefix: str
    policy: str
    rule: str
    reason: str
    session: str
    unreachable: bool = False
    exchange: int = 0

    @property
    def title(self) -> str:
        if self.unreachable:
            return f"{self.destination} cannot be reached: {self.reason}"
        return f"egress to {self.destination} denied: {self.reason}"

    @property
    def explanation(self) -> str:
        """`region US (8.8.8.0/24), rule eu-only/everything-else, session 0a1b`: the facts, in one line."""
        rule = f"rule {self.policy}/{self.rule}" if self.rule else "no rule"
        return f"region {self.region} ({self.prefix}), {rule}, session {self.session}"

    @property
    def how_to_ask(self) -> str:
        return f"ask this host's operator; 'enforcer explain {self.destination}' shows every rule tried"
