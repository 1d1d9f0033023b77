"""`enforcer mask test`."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from enforcer.cli.mask_cmd import LARGEST, Tried, _lines, mask
from enforcer.errors import ConfigError, EnforcerError, PolicyError, UsageError
from enforcer.masking import reasons
from enforcer.masking.detectors import DETECTORS, NAMES
from enforcer.masking.trial import Value
from enforcer.policy.vocabulary import Vocabulary
from enforcer.supervisor import mask_keys
from tests.policy.policy_world import VOCABULARY

from .policy_context import SmallContext, run

PAGE = Path(__file__).parents[2] / "docs" / "masking.md"
POLICY = """\
policy: clinics
rules:
  - name: letters
    to: {region: [EEA]}
    action: allow
    mask: {response: [email], request: [iban]}
  - name: tables
    to: {region: [EEA], protocol: [postgres]}
    action: allow
    mask: {response: [{column: "patients.name"}, {json: "$..ssn"}]}
"""


def tried(tmp_path: Path, name: str, text: bytes, *arguments: str) -> dict[str, Any]:
    """What the command prints of a file with this name and text."""
    context = SmallContext(tmp_path, ("clinics",))
    context.install("clinics", POLICY)
    (tmp_path / name).write_bytes(text)
    result = run(mask, context, "test", *arguments, tmp_path / name)
    assert result.exception is None, result.exception
    printed: dict[str, Any] = json.loads(result.stdout)
    return printed


def found(printed: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [(value["found"], value["place"], value["shown"]) for value in printed["values"]]


def test_values_with_place_reason_and_what_is_left(tmp_path: Path) -> None:
    """Each value is told by line and column in characters, its check and its operator; itself it is not shown."""
    text = "Käufer: ada@example.org\n\nBSN: 111222333, 4111 1111 1111 1111 — order 111222333\n".encode()
    printed = tried(tmp_path, "a.txt", text, "--detectors", "email,nl_bsn,credit_card")
    assert found(printed) == [
        ("email", "1:9", "***@"),
        ("nl_bsn", "3:6", "*********"),
        ("credit_card", "3:17", "**** **** **** 1111"),
    ]
    assert [(value["why"], value["operator"]) for value in printed["values"]] == [
        ("local part, @ and domain", "mask, all before the @"),
        ("behind a label, check nl.bsn", "mask, letters and digits"),
        ("prefix and length of an issuer, Luhn", "mask, all but the last four"),
    ]
    for value, written in zip(printed["values"], (b"ada@", b"111222333", b"4111 1111 1111 1111"), strict=True):
        assert text[value["offset"] :][: value["length"]] == written
        assert written.decode() not in json.dumps(printed["values"])
    assert printed["counts"] == {"email": 1, "nl_bsn": 1, "credit_card": 1}
    assert printed["masked"].encode() == (
        text.replace(b"ada@", b"***@")
        .replace(b"4111 1111 1111 ", b"**** **** **** ")
        .replace(b"BSN: 111222333", b"BSN: *********")
    )


def test_what_a_policy_masks(tmp_path: Path) -> None:
    """A policy stands for all that its rules mask in either direction, a rule for itself; without either it is the
    enabled ones; detectors come on top."""
    text = b"ada@example.org DE89370400440532013000 4111111111111111"
    for arguments in ([], ["--policy", "clinics"], ["--policy", str(tmp_path / "etc/enforcer/policies/clinics.yaml")]):
        assert tried(tmp_path, "a.txt", text, *arguments)["counts"] == {"email": 1, "iban": 1}
    assert tried(tmp_path, "a.txt", text, "--policy", "clinics", "--rule", "tables")["counts"] == {}
    both = ["--policy", "clinics", "--rule", "letters", "--detectors", "credit_card"]
    assert tried(tmp_path, "a.txt", text, *both)["counts"] == {"email": 1, "iban": 1, "credit_card": 1}


def test_tables_are_rows_of_a_database(tmp_path: Path) -> None:
    """A CSV file's first line names its columns; a value is told by row and column."""
    text = b'id,patients.name,note\n1,Ada,"a, b"\n2,Bob,ada@example.org\n'
    printed = tried(tmp_path, "a.csv", text)
    assert found(printed) == [
        ("patients.name", "2:patients.name", "***"),
        ("patients.name", "3:patients.name", "***"),
        ("email", "3:note", "***@"),
    ]
    assert printed["masked"] == 'id,patients.name,note\n1,***,"a, b"\n2,***,***@example.org\n'
    assert printed["counts"] == {"patients.name": 2, "email": 1}


def test_media_by_name_and_by_option(tmp_path: Path) -> None:
    """JSON is masked as JSON, with its paths; the same bytes as a text are not."""
    text = b'{"ssn": 78051120, "mail": "ada@example.org"}'
    printed = tried(tmp_path, "a.json", text)
    assert json.loads(printed["masked"]) == {"ssn": None, "mail": "***@example.org"}
    assert printed["counts"] == {"$..ssn": 1, "email": 1}
    printed = tried(tmp_path, "a.json", text, "--media", "text/plain")
    assert (printed["counts"], printed["media"]) == ({"email": 1}, "text/plain")


@pytest.mark.parametrize(
    ("arguments", "kind", "words"),
    [
        (["--detectors", "emial"], UsageError, "unknown detector 'emial'; use email"),
        (["--detectors", "email", "gone.txt"], UsageError, "gone.txt: No such file or directory; name a file"),
        (["--detectors", "email", "."], UsageError, ".: Is a directory; name a file"),
        (["--rule", "letters"], UsageError, "--rule needs its policy; give --policy P as well"),
        (["--policy", "clinics", "--rule", "x"], UsageError, "no rule 'x'; its rules are letters, tables"),
        (["--policy", "gone"], PolicyError, "gone.yaml:1: file: cannot be read"),
        (["--policy", "plain"], UsageError, "plain masks nothing; give --detectors"),
        (["--media", "application/json"], EnforcerError, "should be JSON cannot be read; ask whoever wrote it"),
        (["--media", "text/csv"], UsageError, "row 2 has 2 cells, the first has 1; give each row as many"),
    ],
)
def test_bad_input_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], kind: type[EnforcerError], words: str
) -> None:
    """Whatever is wrong with the command line, the policy or the text: one line that says what mends it."""
    monkeypatch.chdir(tmp_path)
    context = SmallContext(tmp_path, ("clinics",))
    context.install("clinics", POLICY)
    context.install("plain", "policy: plain\nrules:\n  - {name: all, to: {region: [EEA]}, action: allow}\n")
    result = CliRunner().invoke(mask, ["test", *arguments], obj=context, input="not JSON\nnor, a table\n")
    assert type(result.exception) is kind or (kind is EnforcerError and isinstance(result.exception, kind))
    assert words in str(result.exception)
    assert "\n" not in str(result.exception)


def test_a_text_too_large_is_refused(tmp_path: Path) -> None:
    """What would have to be held in memory as a whole has a limit."""
    (tmp_path / "large").write_bytes(b" " * (LARGEST + 1))
    result = run(mask, SmallContext(tmp_path), "test", "--detectors", "email", tmp_path / "large")
    assert "more than 16 MiB; give a part of it" in str(result.exception)


def test_every_detector_has_its_reasons() -> None:
    """No row of the table lacks the words for how it confirms and hides."""
    for detector in DETECTORS:
        assert reasons.how(detector)
        for _, confirm in detector.candidates:
            assert reasons.why(detector, confirm)


def test_a_terminal_gets_what_the_page_shows(tmp_path: Path) -> None:
    """On a terminal there are lines with colours, and they are those that docs/masking.md prints."""
    section = PAGE.read_text().partition("## Trying it")[2]
    example = section.partition("```\n")[2].partition("```")[0]
    letter, _, shown = example.removeprefix("$ cat letter.txt\n").partition("$ enforcer ")
    command, _, expected = shown.partition("\n")
    (tmp_path / "letter.txt").write_text(letter)
    terminal, inner = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "enforcer", *command.split()], stdout=inner, cwd=tmp_path
    ) as process:
        os.close(inner)
        printed = b""
        try:
            while piece := os.read(terminal, 4096):
                printed += piece
        except OSError:  # how a terminal ends
            pass
        os.close(terminal)
    assert process.returncode == 0
    assert b"\x1b[31m**** **** **** 1111\x1b[0m" in printed
    assert re.sub(rb"\x1b\[[0-9;]*m", b"", printed).replace(b"\r\n", b"\n").decode() == expected


OPERATORS = """\
policy: clinics
rules:
  - name: letters
    to: {region: [EEA], protocol: [http]}
    action: allow
    mask:
      request:
        - {detector: email, operator: pseudonymise}
        - {detector: phone, operator: {pseudonymise: alike}}
        - {detector: credit_card, operator: {mask: {first: 6, last: 4}}}
        - {detector: ip_address, operator: {generalise: network}}
        - {detector: date_of_birth, operator: {generalise: year}}
        - {detector: us_ssn, operator: redact}
        - {detector: nl_bsn, operator: {replace: BSN}}
        - iban
        - {json: "$..name", operator: pseudonymise}
        - {json: "$.income", operator: {generalise: 1000}}
        - {json: "$.gone", operator: nullify}
        - {header: x-user, operator: redact}
        - {query: "mail*", operator: pseudonymise}
        - {form: pin}
        - {csv: full name, operator: pseudonymise}
      response: [{header: x-echo, operator: redact}, {detector: us_ssn, operator: redact}]
  - name: tables
    to: {region: [EEA], protocol: [postgres]}
    action: allow
    mask:
      response:
        - {column: users.contact.email, operator: {mask: {last: 3}}}
        - {column: users.born, operator: {generalise: year}}
        - {column: "users.secret.**"}
        - iban
"""
Row = tuple[str, str, str, str]


class Clinics(SmallContext):
    """With all detectors."""

    def vocabulary(self) -> Vocabulary:
        return replace(VOCABULARY, detectors=NAMES)


def trial(tmp_path: Path, name: str, text: bytes, rule: str = "letters") -> tuple[list[Row], str]:
    """Found, place, shown and operator of each value; and the text as the far side gets it."""
    context = Clinics(tmp_path, ("clinics",))
    context.install("clinics", OPERATORS)
    (tmp_path / name).write_bytes(text)
    result = run(mask, context, "test", "--policy", "clinics", "--rule", rule, tmp_path / name)
    assert result.exception is None, result.exception
    printed = json.loads(result.stdout)
    rows = [(value["found"], value["place"], value["shown"], value["operator"]) for value in printed["values"]]
    return rows, printed["masked"]


def test_each_operator_is_shown_with_what_it_made(tmp_path: Path) -> None:
    """Of each value: what stands there now and by which operator; where an operator cannot be, what is done instead
    and why."""
    lines = [
        "ada@example.org, +44 20 7946 0958",
        "4111 1111 1111 1111 192.0.2.77",
        "date of birth: 1980-03-12",
        "ssn 078-05-1120 BSN: 111222333",
        "DE89370400440532013000 EMAIL_9",
        "ada@example.org b%40example.org",
    ]
    rows, masked = trial(tmp_path, "a.txt", "\n".join(lines).encode())
    assert rows == [
        ("email", "1:1", "EMAIL_1", "pseudonymise"),
        ("phone", "1:18", "+99 90 0000 0002", "pseudonymise alike"),
        ("credit_card", "2:1", "4111 11** **** 1111", "mask {first: 6, last: 4}"),
        ("ip_address", "2:21", "192.0.2.0", "generalise to network"),
        ("date_of_birth", "3:16", "1980-01-01", "generalise to year"),
        ("us_ssn", "4:5", "", "redact"),
        ("nl_bsn", "4:22", "BSN", "replace by BSN"),
        ("iban", "5:1", "******************3000", "mask, all but the last four"),
        ("pseudonym", "5:24", "VALUE_3", "pseudonymise"),
        ("email", "6:1", "EMAIL_1", "pseudonymise"),
        ("email", "6:17", "*%40example.org", "mask, all before the @; not pseudonymise: it is spelt otherwise"),
    ]
    assert masked.splitlines() == [
        "EMAIL_1, +99 90 0000 0002",
        "4111 11** **** 1111 192.0.2.0",
        "date of birth: 1980-01-01",
        "ssn  BSN: BSN",
        "******************3000 VALUE_3",
        "EMAIL_1 *%40example.org",
    ]


DOCUMENT = b"""{"user": {"name": "Ada"}, "income": 12345,
 "gone": "x", "n": 4111111111111111, "s": "\\u0034111111111111111", "name": "Ada"}"""


@pytest.mark.parametrize(
    ("name", "text", "rows", "masked"),
    [
        (
            "a.json",
            DOCUMENT,
            [
                ("$..name", "1:19", "NAME_1", "pseudonymise"),
                ("$.income", "1:37", "12000", "generalise to 1000"),
                ("$.gone", "2:10", "null", "nullify"),
                ("credit_card", "2:20", "null", "null, for it is a number"),
                ("credit_card", "2:44", "411111******1111", "mask {first: 6, last: 4}"),
                ("$..name", "2:71", "NAME_1", "pseudonymise"),
            ],
            '"gone":null',
        ),
        (
            "a.jsonl",
            b'{"name":"Ada"}\n{"x":"ada@example.org"}\n',
            [("$..name", "document 1", "NAME_1", "pseudonymise"), ("email", "document 2", "EMAIL_2", "pseudonymise")],
            '{"name":"NAME_1"}\n{"x":"EMAIL_2"}\n',
        ),
        (
            "a.sse",
            b'data: {"name":"Ada"}\n\ndata: to ada@example.org\n\n',
            [("$..name", "event 1", "NAME_1", "pseudonymise"), ("email", "event 2", "EMAIL_2", "pseudonymise")],
            "data: to EMAIL_2\n",
        ),
        (
            "a.urlencoded",
            b"pin=1234&m=ada%40example.org",
            [("form pin", "form pin", "****", "mask, or null"), ("email", "form m", "EMAIL_1", "pseudonymise")],
            "pin=****&m=EMAIL_1",
        ),
        (
            "a.csv",
            b'full name,mail\n"Lovelace, Ada",ada@example.org\n',
            [
                ("csv full name", "2:full name", "NAME_1", "pseudonymise"),
                ("email", "2:5", "EMAIL_2", "pseudonymise"),
            ],
            "full name,mail\nNAME_1,EMAIL_2\n",
        ),
        (
            "a.http",
            b"POST /u/ada%40example.org?mailbox=x HTTP/1.1\nHost: a\nX-User: Ada\nX-Mail: bob@example.org\n"
            b'Content-Type: application/json\nContent-Length: 9\n\n{"name":"Ada"}',
            [
                ("header x-user", "header X-User", "", "redact"),
                ("email", "header X-Mail", "EMAIL_1", "pseudonymise"),
                ("email", "path", "EMAIL_2", "pseudonymise"),
                ("query mail*", "query mailbox", "MAIL_3", "pseudonymise"),
                ("$..name", "1:9", "NAME_4", "pseudonymise"),
            ],
            "POST /u/EMAIL_2?mailbox=MAIL_3 HTTP/1.1\r\nHost: a\r\nX-User: \r\nX-Mail: EMAIL_1\r\n"
            'Content-Type: application/json\r\nContent-Length: 17\r\n\r\n{"name":"NAME_4"}',
        ),
        (
            "b.http",
            b"HTTP/1.1 200 OK\r\nX-Echo: Ada\r\n\r\nada@example.org 078-05-1120",
            [("header x-echo", "header X-Echo", "", "redact"), ("us_ssn", "1:17", "", "redact")],
            "HTTP/1.1 200 OK\r\nX-Echo: \r\n\r\nada@example.org ",
        ),
    ],
)
def test_fields_of_every_kind_are_shown(tmp_path: Path, name: str, text: bytes, rows: list[Row], masked: str) -> None:
    """What is replaced for its name is told by that name, beside what detectors find, wherever either stands; of a
    message of HTTP with its head, by what is masked in its direction."""
    told, sent = trial(tmp_path, name, text)
    assert told == rows
    assert masked in sent


def test_parts_of_a_form_are_shown_by_name(tmp_path: Path) -> None:
    """What is in a part is told by the part's name, as far as it has one."""
    head = b'--b\r\nContent-Disposition: form-data; name="%b"\r\n'
    pin, letter = head % b"pin" + b"\r\n1234\r\n", head % b"x" + b"Content-Type: application/json\r\n\r\n"
    body = pin + letter + b'{"name":"Ada"}\r\n--b\r\n\r\nada@example.org\r\n--b--\r\n'
    message = b"POST / HTTP/1.1\nHost: a\nContent-Type: multipart/form-data; boundary=b\n\n" + body
    rows, _ = trial(tmp_path, "a.http", message)
    assert [row[:3] for row in rows] == [
        ("form pin", "form pin", "****"),
        ("$..name", "form x", "NAME_1"),
        ("email", "1:1", "EMAIL_2"),
    ]


def test_the_page_shows_what_operators_make(tmp_path: Path) -> None:
    """The second example of docs/masking.md, by a policy that asks for what it shows."""
    example = PAGE.read_text().partition("$ cat ticket.json\n")[2].partition("```")[0]
    ticket, _, shown = example.partition("$ enforcer ")
    policy = """\
policy: support
rules:
  - name: model
    to: {region: [EEA]}
    action: allow
    mask:
      request:
        - {detector: email, operator: pseudonymise}
        - credit_card
        - {json: "$.user.name", operator: pseudonymise}
        - {json: "$.income", operator: {generalise: 1000}}
"""
    context = Clinics(tmp_path, ("support",))
    context.install("support", policy)
    (tmp_path / "ticket.json").write_text(ticket)
    result = run(mask, context, "test", "--policy", "support", "--rule", "model", tmp_path / "ticket.json")
    printed = Tried(**json.loads(result.stdout))
    tried = replace(printed, values=[Value(**value) for value in printed.values])  # type: ignore[arg-type]
    lines = [click.unstyle(line) for line in _lines(tried)]
    assert lines[: len(tried.values) + 1] == shown.splitlines()[1:]


def test_columns_may_be_paths_of_documents(tmp_path: Path) -> None:
    """A table's columns, named as in results or as paths of documents, with their operators."""
    head = "users.id,users.contact.email,users.born,users.secret.key,x"
    text = f"{head}\n1,ada@example.org,1980-03-12,geheim,DE89370400440532013000\n2,,x,,\n"
    told, sent = trial(tmp_path, "a.csv", text.encode(), "tables")
    assert told == [
        ("users.contact.email", "2:users.contact.email", "***@*******.org", "mask {last: 3}"),
        ("users.born", "2:users.born", "1980-01-01", "generalise to year"),
        ("users.secret.**", "2:users.secret.key", "******", "mask, or null"),
        ("iban", "2:x", "******************3000", "mask, all but the last four"),
        ("users.born", "3:users.born", "null", "generalise to year"),
    ]
    assert sent.splitlines()[1:] == ["1,***@*******.org,1980-01-01,******,******************3000", "2,,,,"]


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (b"GET / HTTP/1.1\nhost a\n\n", "line 2 is none of an HTTP message; give a head, an empty line and a body"),
        (b"hello", "line 1 is none of an HTTP message"),
        (b"GET / HTTP/1.1\n\n", "this is no request that would go on (no Host field); correct it"),
        (b"HTTP/1.1 200 OK\nContent-Encoding: gzip\n\nx", "the body: it is compressed; give it as it is once unpacked"),
        (b"HTTP/1.1 200 OK\nContent-Type: text/plain; charset=ebcdic\n\nx", "in a character set that is not read"),
    ],
)
def test_what_is_no_message_is_told_so(tmp_path: Path, message: bytes, words: str) -> None:
    """A message that would not pass is refused here as well, in one line."""
    context = SmallContext(tmp_path)
    (tmp_path / "a.http").write_bytes(message)
    result = run(mask, context, "test", "--detectors", "email", tmp_path / "a.http")
    assert isinstance(result.exception, EnforcerError)
    assert words in str(result.exception)


@pytest.mark.parametrize("data", [b"", bytes(range(256)) * 9, b"\xff\xfe\0a"])
def test_whatever_a_file_holds_it_is_shown(tmp_path: Path, data: bytes) -> None:
    """No text at all, and bytes that are none."""
    context = SmallContext(tmp_path)
    result = CliRunner().invoke(mask, ["test", "--detectors", "email"], obj=context, input=data)
    assert result.exception is None
    printed = json.loads(result.stdout)
    assert (printed["values"], printed["masked"].encode("utf-8", "surrogateescape")) == ([], data)


def test_rotate_puts_a_key_in_front(tmp_path: Path) -> None:
    """The keys file gains a first line and stays root's alone; what was the key before is the second."""
    context = SmallContext(tmp_path)
    before = mask_keys.read(context.settings().state)
    result = run(mask, context, "rotate", "--yes")
    assert result.exception is None, result.exception
    after = mask_keys.read(context.settings().state)
    assert after.keys[1:] == before.keys
    assert result.stdout.startswith(f"key {after.keys[0].ident} is in front of 1 before it")
    path = context.settings().state / mask_keys.KEY_FILE
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="is open to others"):
        mask_keys.read(context.settings().state)
    path.chmod(0o600)
    path.write_text("xyz\n")
    with pytest.raises(ConfigError, match="line 1 is not a key"):
        mask_keys.read(context.settings().state)
