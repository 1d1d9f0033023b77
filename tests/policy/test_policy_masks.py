"""Operators and fields in `mask:`: what they compile to, what is refused, and what people see of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from enforcer.errors import PolicyError
from enforcer.policy.compiled import PolicySet
from enforcer.policy.loader import load_policies
from enforcer.policy.names import all_masks
from enforcer.verdict import Column, Field, JsonPath, MaskSpec, Operator, Pseudonyms

from .policy_world import VOCABULARY, write_policy

RULE = "policy: test\nrules:\n  - {name: a, to: {region: [DE], protocol: [http]}, action: allow, mask: {MASK}}\n"


def compiled(tmp_path: Path, mask: str) -> PolicySet:
    return load_policies([write_policy(tmp_path, RULE.replace("MASK", mask))], VOCABULARY)


def test_items_compile_to_what_they_name_and_how(tmp_path: Path) -> None:
    """Every kind of item and operator arrives at the workers as it was written."""
    policies = compiled(
        tmp_path,
        "request: [email, {detector: iban, operator: pseudonymise}, {json: $.a, operator: {replace: x}},"
        " {header: X-User, operator: hmac}, {query: 'q*'}, {form: f, operator: redact},"
        " {csv: c, operator: {mask: {first: 2, last: 4}}}], pseudonyms: {scope: executor, expires: 30m},"
        " response: [{column: users.contact.**, operator: nullify}, {json: $.born, operator: {generalise: year}},"
        " {json: $.income, operator: {generalise: 1000}}, {json: $.age, operator: {generalise: [0, 18, 65]}}]",
    )
    arrived = PolicySet.from_json(policies.to_json())
    assert arrived == policies
    rule = arrived.policies[0].rules[0]
    assert rule.request_mask == MaskSpec(
        ("email", "iban"),
        (),
        (JsonPath("$.a"),),
        (Field("header", "x-user"), Field("query", "q*"), Field("form", "f"), Field("csv", "c")),
        (
            ("iban", Operator("pseudonymise")),
            (JsonPath("$.a"), Operator("replace", text="x")),
            (Field("header", "x-user"), Operator("hmac")),
            (Field("form", "f"), Operator("redact")),
            (Field("csv", "c"), Operator("mask", first=2, last=4)),
        ),
        Pseudonyms("executor", 1800),
    )
    assert rule.mask.words() == [
        "users.contact.** (nullify)",
        "$.born (generalise to year)",
        "$.income (generalise to 1000)",
        "$.age (generalise to [0, 18, 65])",
    ]
    assert rule.request_mask.words()[1:4] == ["iban (pseudonymise)", "$.a (replace by x)", "header x-user (hmac)"]


@pytest.mark.parametrize(
    ("mask", "fault"),
    [
        ("request: [{detector: email, operator: hash}]", "operator: unknown operator 'hash'; use "),
        ("request: [{detector: email, operator: replace}]", "operator: replace needs its text; write"),
        (
            "request: [{detector: email, operator: {hmac: k}}]",
            "operator: hmac takes nothing more; write operator",
        ),
        (
            "request: [{detector: email, operator: nullify}]",
            "operator: what email finds is a part of a text, and no",
        ),
        ("request: [{json: $.a, operator: }]", "request[0].operator: has no value; write one"),
        ("request: [{detector: email, operator: {generalise: year}}]", "operator: email cannot be generalised so;"),
        ("request: [{detector: iban, operator: {pseudonymise: alike}}]", "operator: pseudonyms alike are for"),
        (
            "request: [{json: $.a, operator: {pseudonymise: alike}}]",
            "pseudonyms alike are for credit_card, email,",
        ),
        ("request: [{json: $.a, operator: {mask: {middle: 3}}}]", "operator: mask takes first, last, or both; write"),
        ("request: [{json: $.a, operator: {mask: {last: -1}}}]", "operator: last must be a number from 1 to 64; write"),
        ("request: [{json: $.a, operator: {generalise: week}}]", "operator: 'week' is no grain; write year,"),
        ("request: [{json: $.a, operator: {generalise: [5, 1]}}]", "operator: ranges of generalise begin at rising"),
        ("request: [{json: $.a, operator: {generalise: 0}}]", "operator: a range of generalise is wider than 0;"),
        ("request: [{json: $.a, how: x}]", "unknown key 'how'; beside json there may be operator"),
        ("request: [{header: Authorization}]", "'Authorization' is what a message is for, how it is sent or who asks;"),
        ("request: [{header: 'a b'}]", "'a b' is not the name of a header field; use"),
        ("request: [email, {detector: email, operator: hmac}]", "names a detector or field twice; remove one"),
        ("response: [{query: q}]", "a query is of requests; move it to mask.request"),
        (
            "response: [{detector: email, operator: pseudonymise}]",
            "pseudonyms are put into requests, and taken",
        ),
        ("response: [{column: a.**.b}]", "'a.**.b' is not a column; write"),
        ("request: [email], pseudonyms: {scope: executor}", "nothing in mask.request is pseudonymised; name"),
        ("request: [{json: $.a, operator: pseudonymise}], pseudonyms: {expires: 1h}", "pseudonyms of a session are"),
        (
            "request: [{json: $.a, operator: pseudonymise}], pseudonyms: {scope: executor, expires: soon}",
            "'soon' is not a duration; write one up to 366d,",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(tmp_path: Path, mask: str, fault: str) -> None:
    """Each combination that cannot work is one fault, which says what mends it."""
    with pytest.raises(PolicyError) as caught:
        compiled(tmp_path, mask)
    assert len(caught.value.faults) == 1, caught.value.faults
    assert fault in caught.value.faults[0]
    assert "; " in caught.value.faults[0]


def test_masks_of_several_rules_together_remember_least() -> None:
    """Where a flow may be for several rules it gets the operators of all, and pseudonyms that end soonest."""
    one = MaskSpec(("email",), operators=(("email", Operator("hmac")),))
    other = MaskSpec(("iban",), (Column("a.b"),), fields=(Field("form", "x"),), pseudonyms=Pseudonyms("executor", 60))
    both = all_masks([one, other, MaskSpec(pseudonyms=Pseudonyms("session"))])
    assert both.detectors == ("email", "iban")
    assert both.fields == other.fields
    assert both.operators == one.operators
    assert both.pseudonyms == Pseudonyms("session")
