"""`enforcer mask test`."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from enforcer.cli.mask_cmd import LARGEST, mask
from enforcer.errors import ConfigError, EnforcerError, PolicyError, UsageError
from enforcer.masking import reasons
from enforcer.masking.detectors import DETECTORS
from enforcer.supervisor import mask_keys

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
        (["--detectors", "emial"], EnforcerError, "unknown detector 'emial'; use email"),
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


def test_operators_are_shown_as_they_work(tmp_path: Path) -> None:
    """Each value with what takes its place, and the operator that puts it there; columns of CSV by name."""
    policy = POLICY.replace("[iban]", "[{detector: email, operator: pseudonymise}, {csv: name, operator: redact}]")
    context = SmallContext(tmp_path, ("clinics",))
    context.install("clinics", policy.replace("response: [email], ", ""))
    (tmp_path / "a.csv").write_text("name,mail\nAnna,ada@example.org\n")
    result = run(mask, context, "test", "--policy", "clinics", "--rule", "letters", tmp_path / "a.csv")
    printed = json.loads(result.stdout)
    assert printed["masked"] == "name,mail\n,EMAIL_1\n"
    assert printed["counts"] == {"csv name": 1, "email": 1}
    assert [(value["shown"], value["operator"]) for value in printed["values"]] == [("EMAIL_1", "pseudonymise")]


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
