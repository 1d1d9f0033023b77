"""Policy files: what is accepted, and that every fault is named once, with its line, its field and its mend."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from enforcer.errors import PolicyError
from enforcer.policy.compiled import PolicySet
from enforcer.policy.loader import load_policies
from enforcer.policy.schema import NO_RULES
from enforcer.verdict import Action, Column, JsonPath

from .policy_world import VOCABULARY, load, write_policy

GOOD = """\
policy: test
description: One of everything.
mode: observe
applies_to:
  - {executor: "ci-*"}
  - user: agent
  - cgroup: user.slice/*
  - unit: agent@*.service
rules:
  - name: first
    to:
      region: [EEA, NO]
      address: [3.120.0.0/14, 2a05:d014::/36]
      host: ["*.Example.org", api.example.org]
      port: [443, 8000-8100]
      protocol: [http]
    action: allow
    mask: {response: [iban, {column: "users.ssn"}, {json: "$.card"}]}
    record: durable
  - {name: unread, to: {region: [DE], port: [22]}, action: allow, path: direct}
  - {name: own, to: {region: [HOST], port: [5432]}, action: allow}
  - {name: rest, to: {region: ["*"]}, action: deny}
expect:
  - {to: "8.8.8.8:443", is: deny, rule: rest}
"""
RULE = "name: a, to: {region: [DE]}, action: allow"
DIRECT = "name: a, to: {{{}region: [DE], port: [443]}}, action: allow, path: direct"


def faults_of(folder: Path, text: str) -> list[str]:
    """The faults of `text` as the policy `test`, without the path in front."""
    path = write_policy(folder, text)
    with pytest.raises(PolicyError) as caught:
        load_policies([path], VOCABULARY)
    assert all(fault.startswith(f"{path}:") and "\n" not in fault for fault in caught.value.faults)
    return [fault.removeprefix(f"{path}:") for fault in caught.value.faults]


def test_a_policy_compiles_to_what_it_says(tmp_path: Path) -> None:
    """Every field of a file reaches the engine's form."""
    policy = load_policies([write_policy(tmp_path, GOOD)], VOCABULARY).policies[0]
    assert (policy.name, policy.observe, policy.executors, policy.users) == (
        "test",
        True,
        ("ci-*",),
        frozenset({"agent"}),
    )
    assert policy.cgroups == ("user.slice/*", "system.slice/system-agent.slice/agent@*.service")
    first, unread, own, rest = policy.rules
    assert (first.name, first.action, first.durable) == ("first", Action.ALLOW, True)
    assert first.region_words == ("EEA", "NO")
    assert len(first.regions) == 30
    assert [network.text for network in first.networks] == ["3.120.0.0/14", "2a05:d014::/36"]
    assert (first.hosts, first.suffixes) == (frozenset({"api.example.org"}), (".example.org",))
    assert first.ports == ((443, 443), (8000, 8100))
    assert first.protocols == frozenset({"http"})
    assert first.mask.detectors == ("iban",)
    assert first.mask.columns == (Column("users.ssn"),)
    assert first.mask.json_paths == (JsonPath("$.card"),)
    assert (first.direct, unread.direct, unread.regions, unread.ports) == (False, True, {"DE"}, ((22, 22),))
    assert (own.loopback, own.regions, unread.loopback) == (True, frozenset(), False)
    assert (rest.action, rest.any_region, rest.durable, bool(rest.mask)) == (Action.DENY, True, False, False)


def test_defaults(tmp_path: Path) -> None:
    """Without further words a policy is enforced, for every executor, and recorded in batches."""
    policy = load(tmp_path, RULE).policies[0]
    assert (policy.observe, policy.executors, policy.users, policy.cgroups) == (False, ("*",), frozenset(), ())
    assert (policy.rules[0].durable, policy.rules[0].direct) == (False, False)


def test_norway_is_a_country(tmp_path: Path) -> None:
    """The unquoted region NO is Norway, not YAML 1.1's false."""
    assert load(tmp_path, "name: a, to: {region: [NO]}, action: allow").policies[0].rules[0].regions == {"NO"}


@pytest.mark.parametrize(
    ("rule", "fault"),
    [
        ("to: {region: [DE]}, action: allow", "3: rules[0].name: is missing; add it"),
        ("name: A b, to: {region: [DE]}, action: allow", "3: rules[0].name: 'A b' is not a name; use lower-case"),
        ("name: a, action: allow", "3: rules[0].to: is missing; add it"),
        (
            "name: a, to: {}, action: deny",
            "3: rules[0].to: names nothing; write at least one condition, such as region",
        ),
        (
            "name: a, to: {port: [1]}, action: allow",
            "3: rules[0].to: an allow rule must say where; add region or address",
        ),
        ("name: a, to: {region: [EU27]}, action: deny", "3: rules[0].to.region[0]: unknown region 'EU27'; use"),
        ("name: a, to: {region: DE}, action: deny", "3: rules[0].to.region: is not a list; write [...]"),
        ("name: a, to: {region: []}, action: deny", "3: rules[0].to.region: is empty; name at least one"),
        ("name: a, to: {region: }, action: deny", "3: rules[0].to.region: is not a list; write [...]"),
        (
            "name: a, to: {region: [DE], protocol: [ftp]}, action: deny",
            "3: rules[0].to.protocol[0]: unknown protocol 'ftp'",
        ),
        (
            "name: a, to: {address: [10.1.2.3/8]}, action: deny",
            "3: rules[0].to.address[0]: '10.1.2.3/8' has host bits set",
        ),
        (
            "name: a, to: {address: [0.0.0.0/0]}, action: allow",
            "3: rules[0].to.address[0]: '0.0.0.0/0' is every address;",
        ),
        ("name: a, to: {region: [DE], port: [0]}, action: deny", "3: rules[0].to.port[0]: '0' is out of range;"),
        (
            "name: a, to: {region: [DE], host: ['http://x']}, action: deny",
            "3: rules[0].to.host[0]: 'http://x' is more than",
        ),
        (
            "name: a, to: {region: [DE], hots: [x]}, action: deny",
            "3: rules[0].to.hots: unknown key; did you mean 'host'?",
        ),
        (
            "name: a, to: {region: [DE]}, action: approve",
            "3: rules[0].action: 'approve' is not accepted; write 'allow' or",
        ),
        (RULE + ", only: {operations: [read]}", "3: rules[0].only.operations: unknown key; did you mean 'operation'?"),
        (RULE + ", record: sometimes", "3: rules[0].record: 'sometimes' is not accepted; write 'durable' or 'batched'"),
        (
            RULE + ", mask: {request: [email], reversible: true}",
            "3: rules[0].mask.reversible: is an operator; write {detector: ..., operator: pseudonymise}",
        ),
        (RULE + ", mask: {}", "3: rules[0].mask: names nothing; write at least one condition, or remove it"),
        (
            RULE + ", mask: {response: [ssn]}",
            "3: rules[0].mask.response[0]: unknown detector 'ssn'; use us_ssn, or write",
        ),
        (RULE + ", mask: {response: [{column: ssn}]}", "3: rules[0].mask.response[0]: 'ssn' is not a column; write"),
        (RULE + ", mask: {response: [{json: a.b}]}", "3: rules[0].mask.response[0]: 'a.b' does not begin with '$';"),
        (
            RULE + ", mask: {response: [{xpath: /a}]}",
            "3: rules[0].mask.response[0]: must be a detector of docs/masking.md, or",
        ),
        (RULE + ", mask: ", "3: rules[0].mask: has no value; write one, or remove it"),
        ("name: a, to: {region: [DE]}, action: deny, mask: {response: [iban]}", "3: rules[0].mask: a deny rule has no"),
        (
            "name: a, to: {region: [DE], protocol: [opaque]}, action: allow, mask: {response: [iban]}",
            "3: rules[0].mask: opaque traffic cannot be masked;",
        ),
        (
            'name: a, to: {region: [DE], host: ["a\\nb"]}, action: deny',
            "3: rules[0].to.host[0]: holds a control character;",
        ),
        ("name: a, to: {region: [DE], region: [US]}, action: deny", "3: rules[0].to.region: the key is given twice;"),
        (RULE + ", path: fast", "3: rules[0].path: 'fast' is not accepted; write 'proxy' or 'direct'"),
        (RULE + ", path: direct", "3: rules[0].to: a direct rule must name regions and ports; add port"),
        (
            "name: a, to: {port: [1]}, action: allow, path: direct",
            "3: rules[0].to: a direct rule must name regions and ports; add region",
        ),
        (
            "name: a, to: {region: [DE], port: [1]}, action: deny, path: direct",
            "3: rules[0].path: a deny rule has no path;",
        ),
        (DIRECT.format("host: [a.b], "), "3: rules[0].to.host: a direct rule is judged by region and port alone;"),
        (DIRECT.format("protocol: [http], "), "3: rules[0].to.protocol: a direct rule is judged by region and port"),
        (DIRECT.format("address: [8.8.8.8], "), "3: rules[0].to.address: a direct rule is judged by region and port"),
        (DIRECT.format("") + ", record: durable", "3: rules[0].record: a direct flow is recorded after it began;"),
        (DIRECT.format("") + ", mask: {response: [iban]}", "3: rules[0].mask: a direct flow is not read,"),
        (DIRECT.format("").replace("DE", "'*'"), "3: rules[0].to.region[0]: a direct rule must name places, not '*';"),
        (DIRECT.format("").replace("DE", "HOST"), "3: rules[0].to.region[0]: a direct rule must name places, not 'HO"),
        ("name: a, to: {region: [HOST, DE]}, action: allow", "3: rules[0].to.region: HOST is the loopback of this"),
        ("name: a, to: {region: ['*', HOST]}, action: deny", "3: rules[0].to.region: HOST is the loopback of this"),
        (
            "name: a, to: {region: [HOST], address: [127.0.0.1]}, action: allow",
            "3: rules[0].to.address: HOST is every loopback address of this host; remove address",
        ),
        ("name: a, to: {region: [!!python/name:os.system DE]}, action: deny", "3: rules[0].to.region[0]: the tag"),
    ],
)
def test_each_fault_of_a_rule_is_named(tmp_path: Path, rule: str, fault: str) -> None:
    """A fault in a rule names line, field, what is wrong and what mends it."""
    faults = faults_of(tmp_path, f"policy: test\nrules:\n  - {{{rule}}}\n")
    assert len(faults) == 1
    assert faults[0].startswith(fault)
    assert "; " in faults[0]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "1: file: is empty; write 'policy:' and 'rules:'"),
        ("# nothing\n", "1: file: is empty;"),
        ("- a\n", "1: file: is not a mapping;"),
        ("text", "1: file: is not a mapping;"),
        ("policy: test\n", f"1: rules: {NO_RULES}"),
        ("policy: test\nrules: []\n", f"2: rules: {NO_RULES}"),
        ("policy: test\nrules:\n", f"2: rules: {NO_RULES}"),
        ("policy: test\nrules: all\n", "2: rules: is not a list;"),
        ("policy: test\nrules: [a]\n", "2: rules[0]: is not a mapping;"),
        (f"rules: [{{{RULE}}}]\n", "1: policy: is missing;"),
        (f"policy: other\nrules: [{{{RULE}}}]\n", "1: policy: 'other' is not the file's name; write 'test'"),
        (
            f"policy: test\nmode: dry\nrules: [{{{RULE}}}]\n",
            "2: mode: 'dry' is not accepted; write 'enforce' or 'observe'",
        ),
        (f"policy: test\ntls: x\nrules: [{{{RULE}}}]\n", "2: tls: unknown key; known are policy, description, mode,"),
        (f"policy: test\nrules:\n- {{{RULE}}}\n- {{{RULE}}}\n", "4: rules[1].name: 'a' is also rule 1; rename one"),
        (f"policy: test\napplies_to: []\nrules: [{{{RULE}}}]\n", "2: applies_to: is empty;"),
        (
            f"policy: test\napplies_to: [{{}}]\nrules: [{{{RULE}}}]\n",
            "2: applies_to[0]: names none or several of executor, user, cgroup, unit; name one",
        ),
        (
            f"policy: test\napplies_to: [{{executor: a, user: b}}]\nrules: [{{{RULE}}}]\n",
            "2: applies_to[0]: names none or several",
        ),
        (
            f"policy: test\napplies_to: [{{cgroup: a/b, unit: c.service}}]\nrules: [{{{RULE}}}]\n",
            "2: applies_to[0]: names none or several",
        ),
        (
            f"policy: test\napplies_to: [{{cgroup: /a/b}}]\nrules: [{{{RULE}}}]\n",
            "2: applies_to[0].cgroup: '/a/b' begins with '/';",
        ),
        (
            f"policy: test\napplies_to: [{{unit: agent}}]\nrules: [{{{RULE}}}]\n",
            "2: applies_to[0].unit: 'agent' is not a service or scope of systemd;",
        ),
        (f"policy: test\napplies_to:\n- executor:\nrules: [{{{RULE}}}]\n", "3: applies_to[0].executor: "),
        (
            f"policy: test\nrules: [{{{RULE}}}]\nexpect:\n- {{to: '8.8.8.8:1', is: deny, rule: b}}\n",
            "4: expect[0].rule: there is no rule 'b';",
        ),
        (
            f"policy: test\nrules: [{{{RULE}}}]\nexpect:\n- {{to: x, is: deny}}\n",
            "4: expect[0].to: 'x' is not an address;",
        ),
        (f"policy: test\nrules: [{{{RULE}}}]\nexpect:\n- {{to: '8.8.8.8:1'}}\n", "4: expect[0].is: is missing;"),
        (
            f"policy: test\nrules: [{{{RULE}}}]\nexpect:\n- {{to: '8.8.8.8:1', is: deny, host: '*.a'}}\n",
            "4: expect[0].host: '*.a' is not one host;",
        ),
        (
            f"policy: test\nrules: [{{{RULE}}}]\nexpect:\n- {{to: '8.8.8.8:1', is: deny, cgroup: 'a/*'}}\n",
            "4: expect[0].cgroup: 'a/*' is not one cgroup;",
        ),
        ("policy: test\nrules: [\n", "3: file: not YAML: "),
        ("policy: &a test\nrules: *a\n", "1: file: not YAML: anchors and aliases are not accepted"),
        ("a: " + "[" * 17 + "]" * 17, "1: file: not YAML: nested deeper than 16 levels"),
        ("a: " + "[" * 100_000, "1: file: not YAML: nested deeper than 16 levels"),
        ("a: 1\n---\nb: 1\n", "2: file: not YAML: "),
        ("%YAML 1." + "9" * 5000 + "\n--- a\n", "1: file: not YAML: a number or escape out of range;"),
        ('a: "\\U00110000"\n', "1: file: not YAML: a number or escape out of range;"),
        ("a: \x01\n", "1: file: not YAML: a control character;"),
        ("? [a]\n: b\n", "1: file: a key is not text;"),
        ('description: "\\ud800"\n', "1: description: holds half a character"),
    ],
)
def test_each_fault_of_a_file_is_named(tmp_path: Path, text: str, fault: str) -> None:
    """A fault of a whole file names line, field, what is wrong and what mends it."""
    faults = faults_of(tmp_path, text)
    assert any(found.startswith(fault) for found in faults), faults


def test_all_faults_of_all_files_at_once(tmp_path: Path) -> None:
    """One run names every fault of every file, in the order of files and lines."""
    one = write_policy(
        tmp_path, "policy: two\nmode: dry\nrules:\n  - {name: a, action: allow, to: {port: [0]}}\n", "one"
    )
    two = write_policy(tmp_path, "policy: two\nrulez: []\n", "two")
    with pytest.raises(PolicyError) as caught:
        load_policies([one, tmp_path / "none.yaml", two], VOCABULARY)
    starts = [fault.removeprefix(f"{tmp_path}/").split(" ")[:2] for fault in caught.value.faults]
    assert starts == [
        ["one.yaml:1:", "policy:"],
        ["one.yaml:2:", "mode:"],
        ["one.yaml:4:", "rules[0].to.port[0]:"],
        ["one.yaml:4:", "rules[0].to:"],
        ["none.yaml:1:", "file:"],
        ["two.yaml:1:", "rules:"],
        ["two.yaml:2:", "rulez:"],
    ]


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    """A directory, a pipe, a missing, an oversized and a Latin-1 file each give one clear fault."""
    pipe, large, latin = tmp_path / "pipe.yaml", tmp_path / "large.yaml", tmp_path / "latin.yaml"
    os.mkfifo(pipe)
    large.write_bytes(b"#" * (1024 * 1024 + 1))
    latin.write_bytes(b"policy: latin\ndescription: caf\xe9\n")
    with pytest.raises(PolicyError) as caught:
        load_policies([tmp_path, pipe, tmp_path / "none.yaml", large, latin], VOCABULARY)
    assert [fault.split(": ", 2)[2] for fault in caught.value.faults] == [
        "is a directory; name a policy file in it",
        "is not a regular file; name a policy file",
        "cannot be read (No such file or directory); check the name and its permissions",
        "is larger than 1 MiB; split it",
        "is not UTF-8; save it as UTF-8",
    ]
    assert caught.value.faults[-1].startswith(f"{latin}:2: ")


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    """A policy's name says which file a verdict comes from, so it is given once."""
    paths = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        paths.append(write_policy(tmp_path / folder, GOOD))
    with pytest.raises(PolicyError, match=f"{paths[1]}:1: policy: {paths[0]} has the same name; enable one of them"):
        load_policies(paths, VOCABULARY)


def test_a_deny_rule_may_name_every_address(tmp_path: Path) -> None:
    """0.0.0.0/0 is refused only where it would open everything."""
    assert load(tmp_path, "name: a, to: {address: [0.0.0.0/0, '::/0']}, action: deny").policies
    assert load(tmp_path, "name: a, to: {address: [0.0.0.0/0], region: [DE]}, action: allow").policies


def test_the_generation_names_the_content(tmp_path: Path) -> None:
    """The same rules give the same generation whatever the comments say; another rule gives another."""
    first = load(tmp_path, RULE)
    assert load(tmp_path, RULE, head="# a comment\ndescription: other words").generation == first.generation
    assert load(tmp_path, RULE.replace("DE", "FR")).generation != first.generation
    assert load(tmp_path, RULE, head="mode: observe").generation != first.generation
    assert load(tmp_path, RULE, head="applies_to: [{executor: '*'}, {unit: a.service}]").generation != first.generation
    ported = RULE.replace("[DE]", "[DE], port: [1]")
    assert load(tmp_path, ported).generation != load(tmp_path, ported + ", path: direct").generation
    assert load_policies([], VOCABULARY).generation == PolicySet.of(()).generation


KEYS = ["policy", "mode", "applies_to", "rules", "expect", "name", "to", "region", "address", "host", "port",
        "protocol", "action", "mask", "response", "column", "json", "record", "is", "rule",
        "user", "executor", "cgroup", "unit", "path"]  # fmt: skip
WORDS = ["test", "observe", "*", "EEA", "NO", "10.0.0.0/8", "8.8.8.8:1", "a.org", "1-2", "allow", "deny", "iban", "$.a",
         "durable", "direct", "HOST", "a/b", "a.service",
         "null", "~", "''", "&a", "*a", "!!x", "<<", "? ", "%", "\t", "{", "[", "\\ud800"]  # fmt: skip
YAMLISH = st.recursive(
    st.sampled_from(WORDS) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4).map(lambda items: f"[{', '.join(items)}]")
        | st.lists(st.tuples(st.sampled_from(KEYS), inner), max_size=5).map(
            lambda pairs: "{" + ", ".join(f"{key}: {value}" for key, value in pairs) + "}"
        )
    ),
    max_leaves=20,
)


def try_to_load(path: Path) -> tuple[PolicySet | None, list[str]]:
    try:
        return load_policies([path], VOCABULARY), []
    except PolicyError as error:
        return None, error.faults


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=YAMLISH | st.text(max_size=200) | YAMLISH.map(lambda rules: f"policy: test\nrules: {rules}\n"))
def test_any_text_is_a_policy_or_a_policy_error(tmp_path: Path, text: str) -> None:
    """Whatever a file holds, the loader answers with a PolicySet or a PolicyError, never with anything else."""
    path = tmp_path / "test.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    loaded, faults = try_to_load(path)
    assert bool(faults) is (loaded is None)
    assert all(str(path) in fault and "\n" not in fault for fault in faults)
    if loaded:
        assert PolicySet.from_json(loaded.to_json()) == loaded


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_policy_is_a_policy_or_a_policy_error(tmp_path: Path, data: st.DataObject) -> None:
    """Cutting and overwriting a good file at any place gives a PolicySet or a PolicyError."""
    start = data.draw(st.integers(0, len(GOOD)))
    end = data.draw(st.integers(start, min(len(GOOD), start + 12)))
    path = tmp_path / "test.yaml"
    path.write_bytes((GOOD[:start] + data.draw(st.text(max_size=6)) + GOOD[end:]).encode("utf-8", "surrogatepass"))
    loaded, faults = try_to_load(path)
    assert bool(faults) is (loaded is None)
