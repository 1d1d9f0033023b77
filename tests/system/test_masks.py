"""Operators and fields of masks, through real workers: judged by what the far side got, and the executor."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs

import pytest

from enforcer.demo.instance import Instance
from enforcer.demo.world import FRANKFURT, World
from tests.fixtures.world import CARD, EMAIL, IBAN, SSN, Shell, database_files, enforcing, eventually, session_list
from tests.system.far_side import HTTP_PORT

pytest_plugins = ["tests.system.plugin"]
pytestmark = [pytest.mark.world, pytest.mark.full]

POLICY = """
    policy: masks
    rules:
      - name: out
        to: {region: [DE], host: [out.example], protocol: [http]}
        action: allow
        mask:
          request:
            - {detector: email, operator: {replace: "<mail>"}}
            - {detector: credit_card, operator: {mask: {first: 6, last: 4}}}
            - {detector: iban, operator: hmac}
            - {detector: ip_address, operator: {generalise: network}}
            - {detector: date_of_birth, operator: {generalise: month}}
            - {detector: us_ssn, operator: redact}
            - {json: "$..name", operator: pseudonymise}
            - {json: "$.income", operator: {generalise: [0, 10000, 50000]}}
            - {json: "$.gone", operator: nullify}
            - {json: "$['a b'][*].n", operator: hmac}
            - {header: "x-user*", operator: hmac}
            - {query: "mail*", operator: redact}
            - {form: pin}
            - {csv: full name, operator: {mask: {first: 1}}}
      - name: back
        to: {region: [DE], host: [back.example], protocol: [http]}
        action: allow
        mask:
          response:
            - {json: "$.headers['x-name']", operator: {mask: {first: 1}}}
            - {json: "$.target", operator: nullify}
            - {header: serv*, operator: redact}
      - name: rows
        to: {region: [DE], protocol: [postgres]}
        action: allow
        mask:
          response:
            - {column: customers.id, operator: {generalise: 10}}
            - {column: customers.name, operator: nullify}
            - {column: "customers.e*", operator: {mask: {last: 3}}}
            - {column: customers.card, operator: hmac}
            - {column: customers.ssn}
            - {column: customers.iban, operator: hmac}
            - {detector: email, operator: redact}
"""


@pytest.fixture(scope="module")
def instance(world: World) -> Iterator[Instance]:
    with enforcing(world, "masks", files={"masks": POLICY}) as running:
        yield running


@pytest.fixture(scope="module")
def shell(instance: Instance) -> Iterator[Shell]:
    with Shell(instance) as opened:
        yield opened
        ask(opened, "/seen", {})  # so that the far side forgets what it got for others' tests


def ask(shell: Shell, target: str, headers: dict[str, str], body: str = "", host: str = "out") -> dict[str, Any]:
    """What the far side says that it got."""
    code = """
        import http.client
        connection = http.client.HTTPConnection(address, port, timeout=30)
        connection.request("POST", target, body=body, headers={"Host": host, **headers})
        answer = connection.getresponse().read().decode()
        connection.close()
    """
    given = {"target": target, "headers": headers, "body": body, "host": f"{host}.example"}
    told: dict[str, Any] = json.loads(shell.run(code, address=FRANKFURT.address, port=HTTP_PORT, **given))
    return told


HMAC = re.compile("hmac-[0-9a-f]{6}-[0-9a-f]{32}")


def test_requests_leave_as_their_operators_say(shell: Shell) -> None:
    """Header, query, members of JSON and what detectors find, each by its own operator; numbers stay numbers."""
    document = {
        "user": {"name": "Ada", "mail": EMAIL, "born": "date of birth: 1980-03-12"},
        "income": 12345,
        "gone": "x",
        "a b": [{"n": "x"}, {"n": "x"}],
        "card": CARD,
        "from": "192.0.2.77",
        "ssn": SSN,
        "iban": IBAN,
    }
    fields = {"X-User-Id": "Ada", "Content-Type": "application/json"}
    got = ask(shell, "/a?mailbox=ada&q=1", fields, json.dumps(document))
    assert got["target"] == "/a?mailbox=&q=1"
    assert HMAC.fullmatch(got["headers"]["x-user-id"])
    sent = json.loads(got["body"])
    first, second = (one.pop("n") for one in sent["a b"])
    assert first == second
    assert HMAC.fullmatch(first)
    assert HMAC.fullmatch(sent.pop("iban"))
    # It was sent as a pseudonym, and the answer has it again.
    assert sent == {
        "user": {"name": "Ada", "mail": "<mail>", "born": "date of birth: 1980-03-01"},
        "income": 10000,
        "gone": None,
        "a b": [{}, {}],
        "card": "411111******1111",
        "from": "192.0.2.0",
        "ssn": "",
    }


def test_forms_and_tables_are_masked_by_name(shell: Shell, instance: Instance) -> None:
    """A pair and a part of a form, and a column of CSV, whatever their values look like."""
    got = ask(shell, "/f", {"Content-Type": "application/x-www-form-urlencoded"}, f"pin=1234&m={EMAIL}&x=1234")
    assert parse_qs(got["body"]) == {"pin": ["****"], "m": ["<mail>"], "x": ["1234"]}
    part = 'Content-Disposition: form-data; name="%s"\r\n\r\n%s\r\n'
    parts = f"--b\r\n{part % ('pin', '1234')}--b\r\n{part % ('x', f'1234 {EMAIL}')}--b--\r\n"
    got = ask(shell, "/f", {"Content-Type": "multipart/form-data; boundary=b"}, parts)
    assert got["body"] == parts.replace("1234", "****", 1).replace(EMAIL, "<mail>")
    table = f'id,Full Name,mail\r\n1,"Ada ""A""",{EMAIL}\r\n2,Bob,-\r\n'
    got = ask(shell, "/t", {"Content-Type": "text/csv"}, table)
    assert got["body"] == 'id,Full Name,mail\r\n1,"A** ""*""",<mail>\r\n2,B**,-\r\n'


def test_answers_come_as_their_operators_say(shell: Shell) -> None:
    """Members of an answer by name."""
    got = ask(shell, "/secret", {"X-Name": "Ada"}, host="back")
    assert (got["target"], got["headers"]["x-name"]) == (None, "A**")


def test_columns_come_as_their_operators_say(shell: Shell) -> None:
    """Columns of PostgreSQL by name, numbers as numbers, and a detector beside them; through an alias as well."""
    statement = "SELECT id, name, email AS e, ssn, iban, card, 'to ' || 'a@example.com' FROM customers"
    row = shell.psql(FRANKFURT.address, statement)
    number, name, email, ssn, iban, card, text = row.stdout.rstrip("\n").split("|")
    assert (number, name, email, ssn) == ("0", "", "***@*******.org", "***********")
    assert HMAC.fullmatch(iban)
    assert HMAC.fullmatch(card)
    assert text == "to "


def test_records_count_and_hold_no_value(instance: Instance, shell: Shell) -> None:
    """Counts by detector and field, under the names that policies have for them; no file of the record holds a value
    that was masked in a request."""
    fields = {"X-User": "Adelheid", "Content-Type": "application/json"}
    ask(shell, f"/a?mailbox={EMAIL}", fields, '{"name": "Adelheid"}')

    def counted() -> dict[str, int]:
        shown = instance.json("sessions", "show", session_list(instance)[0]["id"], "--json")
        return {name: count for one in shown["exchanges"] for name, count in (one["masked"] or {}).items()}

    eventually(lambda: counted() == {"$..name": 1, "header x-user*": 1, "query mail*": 1}, "the counts are recorded")
    for path in database_files(instance):
        stored = path.read_bytes()
        assert not [value for value in ("Adelheid", EMAIL, CARD, IBAN, SSN) if value.encode() in stored], path
