"""`bpf/decision.h`, compiled for this machine and walked over the edges of what it decides about."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_network
from pathlib import Path

import pytest

from tests.capture.native import build, run

# Reads four words per address as they lie in memory; prints is_loopback4 of the first, is_loopback6 and
# is_ipv4_mapped of all, and is_loopback of a flow of either family.
BODY = """
__u32 a[4];
while (fread(a, 4, 4, stdin) == 4) {
	struct flow_record four = { .family = FAMILY_IPV4 }, six = { .family = FAMILY_IPV6 };
	four.address[0] = a[0];
	for (int i = 0; i < 4; i++)
		six.address[i] = a[i];
	printf("%d%d%d", is_loopback4(a[0]), is_loopback6(a), is_ipv4_mapped(a));
	printf("%d%d\\n", is_loopback(&four), is_loopback(&six));
}
"""
LOOPBACK4 = ip_network("127.0.0.0/8")
MAPPED = ip_network("::ffff:0:0/96")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("decision"), BODY)


def ask(program: Path, addresses: Sequence[IPv4Address | IPv6Address]) -> list[str]:
    packed = b"".join(address.packed.ljust(16, b"\0") for address in addresses)
    return subprocess.run([program], input=packed, capture_output=True, check=True).stdout.decode().split()


def test_loopback4_is_127_slash_8_and_the_unspecified_address(program: Path) -> None:
    """Both edges ±1, the same bytes backwards, and Linux's reading of 0.0.0.0 as this host."""
    texts = ["0.0.0.0", "0.0.0.1", "1.0.0.0", "0.0.0.127", "1.0.0.127", "126.255.255.255", "127.0.0.0", "127.0.0.1"]
    texts += ["127.127.127.127", "127.255.255.255", "128.0.0.0", "255.255.255.255", "10.0.0.127", "3.120.0.10"]
    addresses = [IPv4Address(text) for text in texts]
    expected = [address in LOOPBACK4 or int(address) == 0 for address in addresses]
    answers = ask(program, addresses)
    assert [answer[0] == "1" for answer in answers] == expected
    assert [answer[3] == "1" for answer in answers] == expected


def test_loopback6_is_one_address_and_the_unspecified_one(program: Path) -> None:
    """::1 and :: alone: no address that differs from either in a single other bit."""
    base = [IPv6Address("::"), IPv6Address("::1")]
    flipped = [IPv6Address(int(address) ^ (1 << bit)) for address in base for bit in range(128)]
    more = [
        IPv6Address(text) for text in ("::2", "::ffff:127.0.0.1", "::127.0.0.1", "100::", "fe80::1", "2a05:d014::1")
    ]
    addresses = [*base, *flipped, *more]
    expected = [int(address) in (0, 1) for address in addresses]
    answers = ask(program, addresses)
    assert [answer[1] == "1" for answer in answers] == expected
    assert [answer[4] == "1" for answer in answers] == expected


def test_mapped_is_exactly_its_96_bit_prefix(program: Path) -> None:
    """Both edges ±1, every single bit of the prefix flipped, and the prefixes that look like it."""
    first, last = int(MAPPED[0]), int(MAPPED[-1])
    values = [first - 1, first, first + 1, int(IPv6Address("::ffff:127.0.0.1")), last - 1, last, last + 1]
    values += [first ^ (1 << bit) for bit in range(128)]
    values += [
        int(IPv6Address(text)) for text in ("::ffff:0:1.2.3.4", "64:ff9b::1.2.3.4", "::1.2.3.4", "::fffe:1.2.3.4")
    ]
    addresses = [IPv6Address(value) for value in values]
    answers = ask(program, addresses)
    assert [answer[2] == "1" for answer in answers] == [address in MAPPED for address in addresses]


def test_the_program_reads_what_it_is_given(program: Path) -> None:
    """No input, no answer: the tests above compare as many answers as questions."""
    assert run(program) == []
