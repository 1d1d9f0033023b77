"""What `enforcer exec` tells programs of the authorities that they are to trust."""

from __future__ import annotations

import pwd
from pathlib import Path

import pytest

from enforcer.cli.exec_cmd import JAVA_VARIABLE, LIBPQ_VARIABLE, TRUST_VARIABLES, environment_for

DOCS = Path(__file__).resolve().parent.parent.parent / "docs"
NOBODY = pwd.getpwnam("nobody")


def test_every_variable_names_the_bundle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those that the caller has set; what has nothing to do with it stays."""
    monkeypatch.setenv("PIP_CERT", "/elsewhere")
    monkeypatch.setenv("COLOUR", "red")
    told = environment_for(NOBODY, trust=True)
    assert {told[name] for name in TRUST_VARIABLES} == {"/run/ca-bundle.pem"}
    assert told["COLOUR"] == "red"
    assert environment_for(NOBODY, trust=False)["PIP_CERT"] == "/elsewhere"


def test_passwords_of_postgresql_are_tied_to_no_tls_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where TLS is read; what the caller has set stays."""
    monkeypatch.delenv(LIBPQ_VARIABLE, raising=False)
    assert environment_for(NOBODY, trust=True)[LIBPQ_VARIABLE] == "disable"
    assert LIBPQ_VARIABLE not in environment_for(NOBODY, trust=False)
    monkeypatch.setenv(LIBPQ_VARIABLE, "require")
    assert environment_for(NOBODY, trust=True)[LIBPQ_VARIABLE] == "require"


def test_javas_options_of_the_caller_stay_in_force(monkeypatch: pytest.MonkeyPatch) -> None:
    """They come after ours, and of two settings of a property JVMs take the later one."""
    ours = "-Djavax.net.ssl.trustStore=/run/ca-bundle.jks"
    monkeypatch.delenv(JAVA_VARIABLE, raising=False)
    assert environment_for(NOBODY, trust=True)[JAVA_VARIABLE] == ours
    monkeypatch.setenv(JAVA_VARIABLE, "-Xmx1g -Djavax.net.ssl.trustStore=/mine")
    assert environment_for(NOBODY, trust=True)[JAVA_VARIABLE] == f"{ours} -Xmx1g -Djavax.net.ssl.trustStore=/mine"
    monkeypatch.delenv(JAVA_VARIABLE)
    assert JAVA_VARIABLE not in environment_for(NOBODY, trust=False)


def test_every_variable_is_documented() -> None:
    """The page for clients has a row for each, and a line of the file for containers."""
    text = (DOCS / "clients.md").read_text()
    assert [name for name in (*TRUST_VARIABLES, JAVA_VARIABLE) if f"`{name}`" not in text] == []
    assert [name for name in TRUST_VARIABLES if f"\n{name}=/run/enforcer-trust/ca-bundle.pem\n" not in text] == []
