"""`only` of databases: statements and commands by what they do and touch. Doubt closes."""

from __future__ import annotations

from pathlib import Path

import pytest

from enforcer.errors import PolicyError
from enforcer.policy.compiled import PolicySet
from enforcer.policy.described import Described, described
from enforcer.policy.engine import decide, match
from enforcer.policy.expectations import run_expectations
from enforcer.policy.loader import load_policies, read_policy
from enforcer.policy.only import Only, first_difference
from enforcer.policy.only_database import PARTS
from enforcer.verdict import Action, Reason

from .policy_world import VOCABULARY, flow, load, lookup, write_policy

TO = "to: {region: [DE], protocol: [postgres]}, action: allow"


def sent(statement: str, protocol: str = "postgres", *, database: str = "shop", user: str = "app") -> Described:
    """A statement as the session of `user` in `database` sends it."""
    return described(statement=statement, protocol=protocol, stated={"database": database}, database_user=user)


def command(name: str, operation: str = "read", **facts: str) -> Described:
    return Described(facts={"command": name, "operation": operation, **facts})


@pytest.mark.parametrize(
    ("only", "asked", "expected"),
    [
        (Only(operation=("read",)), sent("SELECT name FROM orders"), None),
        (Only(operation=("read",)), sent("DELETE FROM orders"), "operation write is not in read"),
        (Only(operation=("read",)), sent("SELECT 1; DROP TABLE orders"), "operation ddl is not in read"),
        (
            Only(operation=("read",)),
            sent("DO $$ BEGIN END $$"),
            "the statement is not understood: do does what its words do not say",
        ),
        (Only(operation=("read", "unknown")), sent("DO $$ BEGIN END $$"), None),
        (Only(operation=("read",)), sent("SELECT purge_orders()"), "function purge_orders may do anything"),
        (Only(operation=("read",), function=("shop.*",)), sent("SELECT shop.total(1)"), None),
        (Only(operation=("read",), function=("shop.*",)), sent("SELECT total(1)"), "function total may do anything"),
        (Only(operation=("read", "unknown")), sent("SELECT purge_orders()"), None),
        (Only(operation=("read",)), Described(facts={"user": "app", "database": "shop"}), None),
        (Only(operation=("read",)), Described(facts={"operation": "unknown"}), "the operation is unknown"),
        (Only(operation=("read",)), Described(facts={"command": "GET"}), "no operation is known"),
        (Only(table=("orders", "public.orders")), sent("SELECT 1 FROM public.orders, ORDERS o"), None),
        (Only(table=("orders",)), sent('SELECT 1 FROM "Orders"'), "table Orders is not in orders"),
        (Only(table=("orders",)), sent("SELECT 1"), None),
        (Only(table=("orders",)), sent("SELECT f()"), "function f may do anything"),
        (Only(table=("orders",)), sent("SELECT pg_read_file('x')"), "an admin operation may touch any table"),
        (Only(operation=("read", "admin"), table=("orders",)), sent("SELECT set_config('a', 'b', true)"), None),
        (Only(table=("orders",)), sent("CREATE INDEX ON orders (id)"), "table * is not in orders"),
        (Only(table=("*",)), sent("CREATE INDEX ON orders (id)"), None),
        (Only(column=("orders.id", "orders.name")), sent("SELECT id FROM orders WHERE name = 'x'"), None),
        (
            Only(column=("orders.id",)),
            sent("SELECT id FROM orders WHERE name = 'x'"),
            "column orders.name is not in orders.id",
        ),
        (Only(column=("orders.id",)), sent("SELECT * FROM orders"), "column orders.* is not in orders.id"),
        (Only(column=("orders.i*",)), sent("SELECT * FROM orders"), "column orders.* is not in orders.i*"),
        (Only(column=("orders.*",)), sent("SELECT * FROM orders"), None),
        (Only(column=("a.*", "b.x")), sent("SELECT x FROM a JOIN b ON a.id = b.x"), None),
        (Only(column=("a.*",)), sent("SELECT x FROM a JOIN b ON true"), "column b.x is not in a.*"),
        (Only(database=("shop",)), sent("SELECT 1 FROM hr.pay", "mysql"), "database hr is not in shop"),
        (Only(database=("shop",)), sent("USE hr", "mysql"), "database hr is not in shop"),
        (Only(database=("shop",)), sent("SELECT 1 FROM hr.pay"), None),
        (Only(database=("shop",)), Described(facts={"user": "app"}), None),
        (Only(database=("shop",)), Described(facts={"operation": "read"}), "no database is known"),
        (Only(user=("app", "app_*")), sent("SELECT 1", user="app_7"), None),
        (Only(user=("app",)), sent("SELECT 1", user="postgres"), "user postgres is not in app"),
        (Only(command=("get", "config|get")), command("GET"), None),
        (Only(command=("get",)), command("SET", "write"), "command SET is not in get"),
        (Only(command=("get",)), Described(facts={"operation": "read"}), "no command is known"),
        (Only(table=("cart:*",)), command("MGET", table="cart:1, cart:2"), None),
        (Only(table=("cart:*",)), command("MGET", table="cart:1, user:2"), "table user:2 is not in cart:*"),
        (
            Only(table=("cart:*",)),
            command("EVAL", "unknown", statement="a script may reach any key"),
            "the statement is not understood: a script may reach any key",
        ),
    ],
)
def test_a_statement_fits_or_the_difference_is_told(only: Only, asked: Described, expected: str | None) -> None:
    """Each condition compares what the statement does and touches, and doubt never fits."""
    assert first_difference(only, asked) == expected


@pytest.mark.parametrize("part", PARTS)
def test_no_part_is_fitted_by_a_statement_of_which_nothing_is_known(part: str) -> None:
    """What is not understood is outside of every list, if it is not `unknown` itself."""
    clause = Only(**{part: ("*" if part != "operation" else "read",)})
    assert first_difference(clause, Described(facts={"operation": "unknown", "statement": "it is not parsed"}))


def test_a_verdict_is_of_the_statement_and_the_next_is_judged_anew(tmp_path: Path) -> None:
    """A write is denied by the clause of the rule that matched, and the read after it passes."""
    policies = load(tmp_path, f"name: a, {TO}, only: {{operation: [read]}}")
    decided = match(policies, flow(), "postgres", {})
    write, read = decided.on(sent("UPDATE a SET b = 1")), decided.on(sent("SELECT b FROM a"))
    assert (write.action, write.reason, write.rule) == (Action.DENY, Reason.CLAUSE, "a")
    assert read.action is Action.ALLOW


def test_a_clause_of_databases_survives_the_way_to_the_worker(tmp_path: Path) -> None:
    """Every part is in the JSON; commands are compared in lower case."""
    parts = "operation: [read], table: [t], column: [t.*], function: [f], database: [d], user: [u]"
    sql = f"name: a, {TO}, only: {{{parts}}}"
    commands = "name: b, to: {region: [DE], protocol: [redis]}, action: allow, only: {command: [GET]}"
    policies = load(tmp_path, sql, commands)
    assert PolicySet.from_json(policies.to_json()) == policies
    clauses = [rule.only.to_plain() for rule in policies.policies[0].rules if rule.only is not None]
    assert {**clauses[0], **clauses[1]}.keys() == PARTS.keys()
    assert clauses[1] == {"command": ["get"]}


@pytest.mark.parametrize(
    ("rule", "fault"),
    [
        (
            "to: {region: [DE], protocol: [http]}, action: allow, only: {operation: [read]}",
            "http cannot be asked for operation",
        ),
        (
            "to: {region: [DE], protocol: [redis]}, action: allow, only: {column: [a.b]}",
            "redis cannot be asked for column",
        ),
        (
            "to: {region: [DE], protocol: [mysql]}, action: allow, only: {command: [get]}",
            "mysql cannot be asked for command",
        ),
        (
            "to: {region: [DE], protocol: [postgres]}, action: allow, only: {method: [GET]}",
            "postgres cannot be asked for method",
        ),
        ("to: {region: [DE]}, action: allow, only: {table: [a]}", "add protocol: [mongodb, mysql, postgres, redis]"),
        (f"{TO}, only: {{operation: [select]}}", "'select' is not accepted; write 'read', 'write', 'ddl', 'admin' or"),
        (f"{TO}, only: {{column: [ssn]}}", "'ssn' is not a column"),
        (f'{TO}, only: {{table: ["a,b"]}}', "holds a comma and never matches"),
    ],
)
def test_what_a_protocol_cannot_be_asked_is_refused(tmp_path: Path, rule: str, fault: str) -> None:
    """A clause that could never hold is a fault of the file."""
    with pytest.raises(PolicyError, match="rules\\[0\\]") as raised:
        load(tmp_path, f"name: a, {rule}")
    assert fault in str(raised.value)


def test_an_expectation_may_be_a_statement(tmp_path: Path) -> None:
    """Examples in a file are statements as they are sent; one that comes out otherwise is told with why."""
    text = f"""policy: a
rules:
  - {{name: a, {TO}, only: {{operation: [read], user: [app]}}}}
expect:
  - {{to: "3.120.0.1:5432", protocol: postgres, statement: "SELECT 1", database_user: app, is: allow}}
  - {{to: "3.120.0.1:5432", protocol: postgres, statement: "SELECT 1", database_user: root, is: deny}}
  - {{to: "3.120.0.1:5432", protocol: postgres, statement: "DELETE FROM a", database_user: app, is: allow}}
"""
    failures = run_expectations(read_policy(write_policy(tmp_path, text, "a"), VOCABULARY), lookup)
    assert len(failures) == 1
    assert "operation write is not in read" in failures[0]


def test_observed_clauses_of_databases_let_pass(tmp_path: Path) -> None:
    """In observe mode a write that the clause does not allow is told and passes."""
    path = write_policy(
        tmp_path, f"policy: a\nmode: observe\nrules:\n  - {{name: a, {TO}, only: {{operation: [read]}}}}\n", "a"
    )
    verdict = match(load_policies([path], VOCABULARY), flow(), "postgres", {}).on(sent("DELETE FROM a"))
    assert (verdict.passes, verdict.observed) == (True, True)
    assert decide(load_policies([path], VOCABULARY), flow(), "postgres", {}).passes
