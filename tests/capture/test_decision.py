"""`bpf/decision.h`, compiled for this machine and walked over the edges of what it decides about."""

from __future__ import annotations

import struct
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
# Reads the name of a decision and its numbers; prints what it decides.
PAIRS = """
char name[32];
long a, b;
while (scanf("%31s %ld %ld", name, &a, &b) == 3)
	printf("%d\\n", name[0] == 's' ? is_allowed_socket(a, b) : is_refused_option(a, b));
"""
# Reads pairs of family, port and four words as they lie in memory; prints same_destination of both, and is_null of the
# first.
FLOWS = """
struct { __u32 family, port, address[4]; } given[2];
while (fread(given, sizeof(given[0]), 2, stdin) == 2) {
	struct flow_record flow[2] = {};
	for (int i = 0; i < 2; i++) {
		flow[i].family = given[i].family;
		flow[i].port = given[i].port;
		for (int j = 0; j < 4; j++)
			flow[i].address[j] = given[i].address[j];
		/* What says nothing of the destination. */
		flow[i].cookie = flow[i].executor = flow[i].netns = i + 1;
		flow[i].rule = flow[i].pid = flow[i].path = i + 1;
	}
	printf("%d%d\\n", same_destination(&flow[0], &flow[1]), is_null(&flow[0]));
}
"""
# include/uapi/linux/in.h, in6.h, asm-generic/socket.h, tcp.h: everything by which a packet takes another way or form.
REFUSED_OPTIONS = {
    0: {3, 4, 19, 32, 50},
    41: {3, 4, 5, 6, 17, 36, 54, 55, 57, 59, 75, 76},
    1: {25, 36, 51, 52, 62},
    6: {19},
}
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


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("pairs"), PAIRS)


@pytest.fixture(scope="module")
def flows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("flows"), FLOWS)


def test_only_tcp_and_udp_sockets_are_allowed(pairs: Path) -> None:
    """Of all types and protocols exactly stream with TCP and datagram with UDP, named or by default."""
    asked = [(kind, protocol) for kind in range(12) for protocol in range(300)]
    answers = run(pairs, "".join(f"socket {kind} {protocol}\n" for kind, protocol in asked))
    allowed = {one for one, answer in zip(asked, answers, strict=True) if answer == "1"}
    assert allowed == {(1, 0), (1, 6), (2, 0), (2, 17)}


def test_refused_options_are_exactly_those_that_lead_elsewhere(pairs: Path) -> None:
    """Of every level and option to 300 the table above, at its own level only; negative numbers are nobody's."""
    asked = [(level, option) for level in (*range(300), -1) for option in (*range(-1, 130), 17734)]
    answers = run(pairs, "".join(f"option {level} {option}\n" for level, option in asked))
    refused = {one for one, answer in zip(asked, answers, strict=True) if answer == "1"}
    assert refused == {(level, option) for level, options in REFUSED_OPTIONS.items() for option in options}


def pack(family: int, port: int, address: str) -> bytes:
    raw = (IPv4Address(address) if family == 4 else IPv6Address(address)).packed.ljust(16, b"\0")
    return struct.pack("=II", family, port) + raw


def compare(program: Path, questions: Sequence[tuple[bytes, bytes]]) -> list[str]:
    given = b"".join(one + other for one, other in questions)
    return subprocess.run([program], input=given, capture_output=True, check=True).stdout.decode().split()


def test_a_destination_is_the_same_only_whole(flows: Path) -> None:
    """Family, port and every bit of the address decide; who asked, when and by which rule do not."""
    for base in (pack(4, 443, "3.120.0.10"), pack(6, 443, "2a05:d014::10")):
        others = [
            bytes(byte ^ (1 << bit) * (index == at) for index, byte in enumerate(base))
            for at in _meaningful()
            for bit in range(8)
        ]
        answers = compare(flows, [(base, base), *((base, other) for other in others)])
        assert [answer[0] for answer in answers] == ["1"] + ["0"] * len(others)


def _meaningful() -> list[int]:
    """Bytes of a packed destination: the family's and the port's (16 bit), and the address's."""
    return [0, 4, 5, *range(8, 24)]


def test_null_is_no_address_and_no_port(flows: Path) -> None:
    """Zero address and zero port together: what sendmsg() without an address looks like, and no destination does."""
    nulls = [pack(4, 0, "0.0.0.0"), pack(6, 0, "::")]
    others = [pack(4, 53, "0.0.0.0"), pack(4, 0, "127.0.0.1"), pack(6, 53, "::"), pack(6, 0, "::1"), pack(6, 0, "1::")]
    others += [pack(6, 0, "0:0:1::"), pack(6, 0, "0:0:0:0:1::")]
    answers = compare(flows, [(one, one) for one in (*nulls, *others)])
    assert [answer[1] for answer in answers] == ["1", "1"] + ["0"] * len(others)
