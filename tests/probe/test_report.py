"""Signed reports: what they say, and that any change is found."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from enforcer.errors import EnforcerError, HostError
from enforcer.probe import report
from enforcer.probe.results import Attempt, Finding, Outcome, Result

NOW = datetime(2025, 11, 22, 12, 0, tzinfo=UTC)
CONTROL = Attempt(Outcome.DONE, token="0123", token_seen=True, frames=("TCP 1.2.3.4 port 5 SYN",), frame_count=4)
RESULT = Result(
    "tcp4",
    "address forms",
    "isolated",
    "root",
    Finding.CONTAINED,
    "nothing arrived",
    CONTROL,
    Attempt(Outcome.REFUSED, "PermissionError"),
    0.1234,
)


@pytest.fixture
def filed(tmp_path: Path) -> Path:
    path = tmp_path / "report.json"
    path.write_bytes(report.sign(report.compose([RESULT], NOW, NOW), report.host_key(tmp_path / "state")))
    return path


def rewritten(path: Path, change: Any) -> Path:
    document = json.loads(path.read_bytes())
    change(document)
    path.write_bytes(report.canonical(document) + b"\n")
    return path


def test_a_report_holds_evidence_and_verifies(filed: Path) -> None:
    """Host, kernel, source, times, counts, and for each result what the far side saw."""
    found = report.verify(filed)
    assert found["begun"] == "2025-11-22T12:00:00Z"
    assert found["host"]["kernel"]
    assert len(found["enforcer"]["source_sha256"]) == 64
    assert found["counts"] == {"ESCAPED": 0, "CONTAINED": 1, "SKIPPED": 0, "ERROR": 0}
    assert found["whole_catalogue"] is False
    [row] = found["results"]
    assert row["control"]["frames"] == ["TCP 1.2.3.4 port 5 SYN"]
    assert row["inside"]["frame_count"] == 0
    assert row["milliseconds"] == 123


def test_the_right_key_is_accepted_and_another_is_not(filed: Path) -> None:
    """`--key` pins whose report it must be."""
    found = report.verify(filed)["key_fingerprint"]
    report.verify(filed, found.upper())
    with pytest.raises(EnforcerError, match="another host"):
        report.verify(filed, "0" * 64)


@pytest.mark.parametrize(
    "change",
    [
        lambda document: document["report"]["results"][0].update(finding="ESCAPED"),
        lambda document: document["report"]["results"].clear(),
        lambda document: document["report"]["host"].update(kernel="6.1"),
        lambda document: document["report"].update(key_fingerprint="0" * 64),
        lambda document: document.update(note="not signed"),
        lambda document: document.update(signature="00" * 64),
    ],
    ids=["finding", "results", "kernel", "fingerprint", "beside", "signature"],
)
def test_any_change_is_found(filed: Path, change: Any) -> None:
    """Not a word can be changed, added or removed."""
    with pytest.raises(EnforcerError, match="altered"):
        report.verify(rewritten(filed, change))


def test_another_spelling_is_found(filed: Path) -> None:
    """A name given twice would show a reader what was not signed."""
    filed.write_bytes(filed.read_bytes().replace(b'{"report":{', b'{"report":{"counts":{"ESCAPED":0},', 1))
    with pytest.raises(EnforcerError, match="altered"):
        report.verify(filed)


def test_somebody_elses_key_does_not_pass_for_ours(filed: Path, tmp_path: Path) -> None:
    """Whoever signs an altered report anew has another fingerprint."""
    expected = report.verify(filed)["key_fingerprint"]
    body = report.compose([], NOW, NOW)
    filed.write_bytes(report.sign(body, report.host_key(tmp_path / "elsewhere")))
    assert report.verify(filed)["counts"]["CONTAINED"] == 0
    with pytest.raises(EnforcerError, match="another host"):
        report.verify(filed, expected)


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b'{"report": {}}', b"\xff", b'{"report": {"public_key": 5}}'])
def test_what_is_no_report_is_refused(tmp_path: Path, text: bytes) -> None:
    """One line, not a traceback."""
    path = tmp_path / "x"
    path.write_bytes(text)
    with pytest.raises(EnforcerError, match="not a report"):
        report.verify(path)


def test_the_key_is_made_once_and_is_private(tmp_path: Path) -> None:
    """Made at first use, readable by its owner only, and the same ever after."""
    body = report.compose([], NOW, NOW)
    first = report.sign(body, report.host_key(tmp_path / "state"))
    assert report.sign(body, report.host_key(tmp_path / "state")) == first
    assert ((tmp_path / "state/probe.key").stat().st_mode & 0o777) == 0o600


def test_a_damaged_key_is_named(tmp_path: Path) -> None:
    """A key that cannot be read is not silently replaced: reports of before would no longer be ours."""
    (tmp_path / "probe.key").write_text("not a key")
    with pytest.raises(HostError, match="no key for reports"):
        report.host_key(tmp_path)
