"""Step 3 of 6, decide: policy files in, one compiled PolicySet out, or every fault of every file at once.

Runs in the supervisor and in the CLI, never in a worker. A PolicyError leaves whatever generation is in force in force.
"""

from __future__ import annotations

import difflib
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from enforcer.errors import PolicyError
from enforcer.policy.compiled import ANY_REGION, HOST_REGION, Policy, PolicySet, Rule
from enforcer.policy.consistency import Fault, blank_fields, consistency_faults
from enforcer.policy.document import Location, Plain, read_document
from enforcer.policy.masks import MaskItem
from enforcer.policy.only import Only
from enforcer.policy.schema import MODELS, NO_RULES, OnlyEntry, PolicyFile, PseudonymsEntry, RuleEntry
from enforcer.policy.vocabulary import Vocabulary
from enforcer.verdict import PSEUDONYMISE, Action, Column, Field, JsonPath, MaskSpec, Pseudonyms

# A policy is written and reviewed by people; the shipped packs are under 4 KiB.
MAX_FILE = 1 << 20
BLANK = "has no value; write one, or remove it"
# pydantic's error types that a policy file can cause, in our words; `value_error` carries our own message.
_MESSAGES = {
    "missing": "is missing; add it",
    "model_type": "is not a mapping; write 'key: value' lines",
    "string_type": "is not text; write text, in quotes where it holds signs of YAML",
    "tuple_type": "is not a list; write [...], or one '- ' line per item",
}
# Keys that a reader of the design may expect.
_NOT_YET = {
    ("mask", "reversible"): "is an operator; write {detector: ..., operator: pseudonymise}",
}
_CONTROL = {code: f"\\x{code:02x}" for code in chain(range(0x20), range(0x7F, 0xA0))}


@dataclass(frozen=True)
class PolicySource:
    """One valid file: where it is, what it says, what that compiles to, and the line of each expectation."""

    path: Path
    file: PolicyFile
    policy: Policy
    expectation_lines: tuple[int, ...]


def load_policies(paths: Iterable[Path], vocabulary: Vocabulary) -> PolicySet:
    """The policies of `paths`, in order. Raises PolicyError with all faults of all files."""
    sources, faults = [], []
    for path in paths:
        try:
            sources.append(read_policy(path, vocabulary))
        except PolicyError as error:
            faults += error.faults
    faults += duplicate_faults(sources)
    if faults:
        raise PolicyError(faults)
    return PolicySet.of(tuple(source.policy for source in sources))


def duplicate_faults(sources: Sequence[PolicySource]) -> list[str]:
    """A verdict names its policy, so no two enabled files may have the same name."""
    first: dict[str, Path] = {}
    faults = []
    for source in sources:
        other = first.setdefault(source.policy.name, source.path)
        if source.path is not other:
            faults.append(fault(source.path, 1, ("policy",), f"{other} has the same name; enable one of them"))
    return faults


def read_policy(path: Path, vocabulary: Vocabulary) -> PolicySource:
    """One file, validated and compiled. Raises PolicyError with all its faults."""
    document = read_document(_read_text(path))
    faults = list(document.faults)
    file = None
    if isinstance(document.data, dict):
        file, found = _validate(document.data, path.stem, vocabulary)
        faults += [(document.line(location), location, message) for location, message in found]
    elif document.data is not None:
        faults.append((1, (), "is not a mapping; begin with 'policy: NAME'"))
    elif not faults:
        faults.append((1, (), "is empty; write 'policy:' and 'rules:'"))
    if faults or file is None:
        raise PolicyError([fault(path, *found) for found in sorted(faults, key=lambda found: found[0])])
    lines = tuple(document.line(("expect", number)) for number in range(len(file.expect)))
    return PolicySource(path, file, _compile(file, vocabulary), lines)


def fault(path: Path, line: int, location: Location, message: str) -> str:
    """`file:line: field: what; mend`, always one line."""
    field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".") or "file"
    return f"{path}:{line}: {field}: {message}".translate(_CONTROL)


def _read_text(path: Path) -> str:
    """The file's text; bounded before it is read. Raises PolicyError."""
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise PolicyError([fault(path, 1, (), "is a directory; name a policy file in it")])
        if not stat.S_ISREG(status.st_mode):
            raise PolicyError([fault(path, 1, (), "is not a regular file; name a policy file")])
        with path.open("rb") as stream:
            data = stream.read(MAX_FILE + 1)
    except OSError as error:
        message = f"cannot be read ({error.strerror}); check the name and its permissions"
        raise PolicyError([fault(path, 1, (), message)]) from error
    if len(data) > MAX_FILE:
        raise PolicyError([fault(path, 1, (), "is larger than 1 MiB; split it")])
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise PolicyError([fault(path, line, (), "is not UTF-8; save it as UTF-8")]) from error


def _validate(data: dict[str, Plain], stem: str, vocabulary: Vocabulary) -> tuple[PolicyFile | None, list[Fault]]:
    file, found = None, list[Fault]()
    try:
        file = PolicyFile.model_validate(data, context=vocabulary)
    except ValidationError as error:
        # pydantic's mark for a fault in a key itself, which our locations end with anyway.
        found = [(tuple(part for part in item["loc"] if part != "[key]"), _message(item)) for item in error.errors()]
    reported = {location for location, _ in found}
    blanks = [(location, BLANK) for location in blank_fields(data) if location not in reported]
    return file, [*found, *blanks, *consistency_faults(data, stem)]


def _message(item: ErrorDetails) -> str:
    location, kind = item["loc"], item["type"]
    if location == ("rules",) and kind == "missing":
        return NO_RULES
    if kind == "value_error":
        return str(item["ctx"]["error"])
    if kind == "literal_error":
        return f"{item['input']!r} is not accepted; write {item['ctx']['expected']}"
    if kind == "extra_forbidden":
        return _unknown_key(location)
    return _MESSAGES.get(kind, f"{item['msg']}; correct it")


def _unknown_key(location: Location) -> str:
    *around, key = location
    parent = next((part for part in reversed(around) if isinstance(part, str)), "")
    if (parent, key) in _NOT_YET:
        return _NOT_YET[parent, str(key)]
    known = [field.alias or name for name, field in MODELS[parent].model_fields.items()]
    close = difflib.get_close_matches(str(key), known, n=1)
    return f"unknown key; did you mean {close[0]!r}?" if close else f"unknown key; known are {', '.join(known)}"


def _compile(file: PolicyFile, vocabulary: Vocabulary) -> Policy:
    return Policy(
        name=file.policy,
        observe=file.mode == "observe",
        executors=tuple(entry.executor for entry in file.applies_to if entry.executor),
        users=frozenset(entry.user for entry in file.applies_to if entry.user),
        cgroups=tuple(pattern for entry in file.applies_to if (pattern := entry.cgroup or entry.unit)),
        rules=tuple(_compile_rule(entry, vocabulary) for entry in file.rules),
    )


def _compile_rule(entry: RuleEntry, vocabulary: Vocabulary) -> Rule:
    to = entry.to
    places = [name for name in to.region if name not in (ANY_REGION, HOST_REGION)]
    return Rule(
        name=entry.name,
        action=Action(entry.action),
        region_words=to.region,
        regions=frozenset(chain.from_iterable(map(vocabulary.regions, places))),
        networks=to.address,
        hosts=frozenset(host for host in to.host if not host.startswith("*.")),
        suffixes=tuple(host.removeprefix("*") for host in to.host if host.startswith("*.")),
        ports=to.port,
        protocols=frozenset(to.protocol),
        mask=_compile_mask(entry.mask.response if entry.mask else ()),
        request_mask=_compile_mask(entry.mask.request, entry.mask.pseudonyms) if entry.mask else MaskSpec(),
        durable=entry.record == "durable",
        direct=entry.path == "direct",
        only=None if entry.only is None else _compile_only(entry.only),
    )


def _compile_mask(items: tuple[MaskItem, ...], pseudonyms: PseudonymsEntry | None = None) -> MaskSpec:
    masked = [item.masked for item in items]
    operators = tuple((item.masked, item.operator) for item in items if item.operator is not None)
    made = pseudonyms is not None and any(operator.name == PSEUDONYMISE for _, operator in operators)
    return MaskSpec(
        detectors=tuple(item for item in masked if isinstance(item, str)),
        columns=tuple(item for item in masked if isinstance(item, Column)),
        json_paths=tuple(item for item in masked if isinstance(item, JsonPath)),
        fields=tuple(item for item in masked if isinstance(item, Field)),
        operators=operators,
        pseudonyms=Pseudonyms(pseudonyms.scope, pseudonyms.expires) if made and pseudonyms is not None else None,
    )


def _compile_only(entry: OnlyEntry) -> Only:
    return Only(
        method=entry.method,
        path=entry.path,
        header=tuple(entry.header.items()),
        content_type=entry.content_type,
        grpc=entry.grpc,
        graphql_type=entry.graphql.type,
        graphql_name=entry.graphql.name,
        rpc=entry.rpc,
        tool=entry.tool,
        model=entry.model,
        operation=entry.operation,
        command=entry.command,
        table=entry.table,
        column=entry.column,
        function=entry.function,
        database=entry.database,
        user=entry.user,
    )
