"""The words of `to:`: networks, ports, hosts and endpoints."""

from __future__ import annotations

import contextlib
import re
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enforcer.policy.destinations import (
    canonical_host,
    parse_destination,
    parse_endpoint,
    parse_host,
    parse_network,
    parse_ports,
)


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("10.0.0.0/8", "10.255.255.255", "11.0.0.0"),
        ("10.0.0.0/8", "10.0.0.0", "9.255.255.255"),
        ("169.254.169.254", "169.254.169.254", "169.254.169.253"),
        ("2001:db8::/32", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", "2001:db9::"),
        ("0.0.0.0/0", "255.255.255.255", "::"),
        ("::/0", "::", "0.0.0.0"),
    ],
)
def test_a_network_holds_its_addresses_of_its_version_only(text: str, inside: str, outside: str) -> None:
    """A network holds its first and last address, and neither its neighbours nor the other IP version."""
    network = parse_network(text)
    for address, held in ((ip_address(inside), True), (ip_address(outside), False)):
        assert network.holds(address.version, int(address)) is held


def test_host_bits_name_the_network_and_the_address() -> None:
    """A network with host bits set is refused with both things that may have been meant."""
    with pytest.raises(ValueError, match=r"host bits set; write 10\.0\.0\.0/8 .* or 10\.1\.2\.3/32"):
        parse_network("10.1.2.3/8")


@pytest.mark.parametrize(
    "text",
    ["", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/255.0.0.0", "10.0.0.0/", "10.0.0", "010.0.0.1", "fe80::1%eth0/128",
     "example.org", "10.0.0.0/8/8", "10.0.0.0/٨", "1"],
)  # fmt: skip
def test_bad_networks_are_refused(text: str) -> None:
    """Netmasks, zones, short forms, octal and foreign digits are not networks."""
    with pytest.raises(ValueError, match="is not a network"):
        parse_network(text)


def test_a_mapped_network_is_refused_with_its_ipv4_form() -> None:
    """Flows are unmapped, so an IPv4-mapped network would never match and is refused."""
    with pytest.raises(ValueError, match=r"write 192\.0\.2\.0/24"):
        parse_network("::ffff:192.0.2.0/120")


@pytest.mark.parametrize(("text", "ports"), [("1", (1, 1)), ("65535", (65535, 65535)), ("8000-8100", (8000, 8100))])
def test_ports(text: str, ports: tuple[int, int]) -> None:
    """One port is a range of one."""
    assert parse_ports(text) == ports


@pytest.mark.parametrize(
    "text", ["0", "65536", "99999", "0-10", "10-65536", "20-10", "-1", "1-", "https", "1 ", "٣", "1-2-3"]
)
def test_bad_ports_are_refused(text: str) -> None:
    """Ports run from 1 to 65535, forwards, in ASCII digits."""
    with pytest.raises(ValueError, match="; "):
        parse_ports(text)


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("API.OpenAI.com", "api.openai.com"),
        ("example.org.", "example.org"),
        ("*.Example.org", "*.example.org"),
        ("bücher.example", "xn--bcher-kva.example"),  # the example of RFC 3492's authors
        ("BÜCHER.example", "xn--bcher-kva.example"),
        ("*.bücher.example", "*.xn--bcher-kva.example"),
        ("xn--strae-oqa.de", "xn--strae-oqa.de"),
        ("my_db.internal", "my_db.internal"),
    ],
)
def test_hosts_become_lower_case_a_labels(text: str, host: str) -> None:
    """Case, trailing dot and IDNA are settled when the policy is read."""
    assert parse_host(text) == host


@pytest.mark.parametrize(
    "text",
    ["https://example.org", "example.org:443", "example.org/path", "*", "*.", "a.*.org", "*example.org", "", ".",
     "a..b", "-a.org", "a" * 64 + ".org", "a b.org", "8.8.8.8", "::1", "[::1]", "x." * 127 + "x", "user@example.org"],
)  # fmt: skip
def test_bad_hosts_are_refused(text: str) -> None:
    """Schemes, ports, paths, inner wildcards, addresses and impossible labels are not host names."""
    with pytest.raises(ValueError, match="; "):
        parse_host(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        # UTS 46 section 4: the four characters for which IDNA 2003 and 2008 deviate.
        ("straße.de", "is xn--strae-oqa.de to some clients and strasse.de to others; write the one you mean"),
        ("βόλος.com", "is xn--nxasmm1c.com to some clients and xn--nxasmq6b.com to others; write the one you mean"),
        ("☃.net", "is not a name for every client; write it as A-labels (xn--...)"),
    ],
)
def test_a_host_that_clients_write_in_two_ways_is_refused(text: str, words: str) -> None:
    """A rule has to say which of two names it means."""
    with pytest.raises(ValueError, match=re.escape(words)):
        parse_host(text)


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("Example.ORG", "example.org"),
        ("example.org.", "example.org"),
        ("example.org:8080", "example.org"),
        ("example.org.:80", "example.org"),
        ("\u212aiev.example", "\u212aiev.example"),
    ],
)
def test_a_clients_host_is_brought_to_the_form_of_rules(text: str, host: str) -> None:
    """Case, port and trailing dot make no other host; a Kelvin sign is not a k."""
    assert canonical_host(text) == host


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("3.120.0.1:5432", "3.120.0.1:5432"),
        ("[2a05:d014::1]:443", "[2a05:d014::1]:443"),
        ("[::ffff:8.8.8.8]:443", "8.8.8.8:443"),
    ],
)
def test_endpoints(text: str, endpoint: str) -> None:
    """An endpoint prints as it is written; IPv4-mapped addresses are unmapped."""
    assert str(parse_endpoint(text)) == endpoint


@pytest.mark.parametrize(
    ("text", "port"),
    [("8.8.8.8", None), ("2a05:d014::1", None), ("[2a05:d014::1]", None), ("8.8.8.8:53", 53), ("::5432", None)],
)
def test_a_destination_may_lack_its_port(text: str, port: int | None) -> None:
    """An IPv6 address without brackets is an address alone, never an address and a port."""
    assert parse_destination(text)[1] == port


@pytest.mark.parametrize(
    "text",
    ["", ":", "8.8.8.8:", "8.8.8.8:0", "8.8.8.8:65536", "8.8.8.8:+1", "8.8.8.8:٣", "example.org:443", "[::1",
     "[::1]443", "[fe80::1%eth0]:1", "8.8.8.8:1:2", "[]:1", "1:1"],
)  # fmt: skip
def test_bad_endpoints_are_refused(text: str) -> None:
    """Names, zones, missing brackets and impossible ports are not endpoints."""
    with pytest.raises(ValueError, match="; "):
        parse_endpoint(text)


@given(st.text(max_size=40) | st.from_regex(r"[0-9a-f.:/\[\]%-]{0,40}"))
def test_parsers_raise_nothing_but_value_error(text: str) -> None:
    """Whatever a policy says, each word is read or refused with ValueError."""
    canonical_host(text)
    for parse in (parse_network, parse_ports, parse_host, parse_endpoint, parse_destination):
        with contextlib.suppress(ValueError):
            parse(text)
