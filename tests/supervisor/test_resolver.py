"""Whom the resolver asks: from the configuration or the host's own file, and only at home."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from enforcer.config import Home, Resolver, Settings, Upstream
from enforcer.errors import ConfigError
from enforcer.supervisor import resolver
from enforcer.supervisor.resolver import check_upstreams, servers
from tests.policy.policy_world import lookup


class Table:
    def lookup(self, address: Any) -> Any:
        return lookup(address)


def settings(*addresses: str, home: tuple[str, ...] = (), **changes: Any) -> Settings:
    upstreams = tuple(Upstream(address=ip_address(one)) for one in addresses)
    return Settings(resolver=Resolver(upstreams=upstreams, **changes), home=Home(regions=home))


def test_configured_upstreams_are_asked_as_configured() -> None:
    """Port 53, or 853 with a certificate's name, or the one that is given."""
    upstreams = (
        Upstream(address=ip_address("3.120.0.1")),
        Upstream(address=ip_address("2a05:d014::1"), tls="dns.example"),
        Upstream(address=ip_address("3.120.0.10"), port=5353),
    )
    assert servers(Settings(resolver=Resolver(upstreams=upstreams))) == [
        ("3.120.0.1", 53, ""), ("2a05:d014::1", 853, "dns.example"), ("3.120.0.10", 5353, ""),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("# a comment\nsearch example\nnameserver 3.120.0.1\nnameserver ::1\n", ["3.120.0.1", "::1"]),
        ("nameserver 127.0.0.53\noptions edns0\n", ["127.0.0.53"]),
        ("nameserver not-an-address\nnameserver\n", ["127.0.0.1"]),
        ("", ["127.0.0.1"]),
        ("nameserver 1.1.1.1\n" * 5, ["1.1.1.1"] * 3),
        (None, ["127.0.0.1"]),
    ],
)
def test_without_configuration_the_hosts_own_are_asked(tmp_path: Path, text: str | None, expected: list[str]) -> None:
    """As resolv.conf(5) has it: at most three, this host's where it names none."""
    path = tmp_path / "resolv.conf"
    if text is not None:
        path.write_text(text)
    assert [address for address, _, _ in servers(Settings(), path)] == expected


def test_upstreams_have_to_be_at_home() -> None:
    """Outside, or nowhere that is known: refused in one line that says what mends it. Inside, and this host's: fine."""
    table: Any = Table()
    check_upstreams(settings("3.120.0.1", "127.0.0.53", "169.254.169.254", home=("EEA",)), table)
    for address, where in (("8.8.8.8", "US"), ("10.0.0.1", "private"), ("198.51.100.1", "unknown")):
        with pytest.raises(ConfigError) as refused:
            check_upstreams(settings("3.120.0.1", address, home=("EEA",)), table)
        assert f"upstream {address} is in {where}, outside home.regions (EEA);" in str(refused.value)
        assert "\n" not in str(refused.value)


def test_without_a_home_any_upstream_is_taken() -> None:
    """And with the resolver off nobody is asked."""
    table: Any = Table()
    check_upstreams(settings("8.8.8.8"), table)
    check_upstreams(settings("8.8.8.8", home=("EEA",), enabled=False), table)


def test_the_hosts_own_upstreams_are_checked_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What resolv.conf names is no exception."""
    path = tmp_path / "resolv.conf"
    path.write_text("nameserver 8.8.8.8\n")
    monkeypatch.setattr(resolver, "RESOLV_CONF", path)
    table: Any = Table()
    with pytest.raises(ConfigError, match=r"8\.8\.8\.8 is in US"):
        check_upstreams(settings(home=("EEA",)), table)
