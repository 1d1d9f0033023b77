"""What names may carry upstream: long names, encoded labels, many names. Ordinary ones pass."""

from __future__ import annotations

import base64
import uuid

import pytest

from enforcer.resolver.limits import MAX_NAMES, MAX_ZONES, WINDOW, Limits, entropy, zone_of

SECRET = bytes(range(7, 200, 3))
ENCODED = {
    "hexadecimal": SECRET.hex()[:60],
    "base32": base64.b32encode(SECRET).decode().lower()[:60],
    "hexadecimal of 40": SECRET.hex()[:40],
}
# Names as clouds and content networks really have them.
ORDINARY = (
    "db.example",
    "www.bbc.co.uk",
    "d111111abcdef8.cloudfront.net",
    "ec2-203-0-113-25.eu-central-1.compute.amazonaws.com",
    "internal-orders-elb-1234567890.eu-central-1.elb.amazonaws.com",
    "my-service-production-blue.privatelink.postgres.database.azure.com",
    "a-very-long-service-name-for-production-environments-in-frankfurt.internal.example.com",
    f"{uuid.UUID(int=0x1234567890ABCDEF1234567890ABCDEF)}.ods.opinsights.azure.com",
    "_acme-challenge.www.example.org",
    "10.0.120.3.in-addr.arpa",
)


@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_names_pass(name: str) -> None:
    """However long they are in practice."""
    assert Limits(1).refuses(name, 0.0) == ""


@pytest.mark.parametrize("how", ENCODED)
def test_a_label_that_is_data_is_refused(how: str) -> None:
    """Encoded bytes have the entropy and the digits that words have not."""
    assert "looks like data" in Limits(60).refuses(f"{ENCODED[how]}.t.example", 0.0)


def test_a_long_name_is_refused() -> None:
    """Also where its labels are short."""
    assert "characters below t.example" in Limits(60).refuses(".".join(["word"] * 30) + ".t.example", 0.0)


def test_names_of_one_zone_are_counted_by_the_minute() -> None:
    """The one over the limit is refused, one that was counted passes again, another zone has its own count, and the
    next minute begins anew."""
    limits = Limits(5)
    names = [f"w{number}.tunnel.example.com" for number in range(5)]
    assert [limits.refuses(name, 1.0) for name in names] == [""] * 5
    assert "more than 5 names of example.com" in limits.refuses("w5.tunnel.example.com", 2.0)
    assert limits.refuses(names[0], 3.0) == ""
    assert limits.refuses("w5.example.org", 3.0) == ""
    assert limits.refuses("w5.tunnel.example.com", 1.0 + WINDOW) == ""


def test_zones_and_names_are_bounded_in_all() -> None:
    """An executor that makes up zones fills no memory: beyond the bounds everything new is refused."""
    limits = Limits(MAX_NAMES)
    assert not any(limits.refuses(f"a.zone{number}.example{number}", 0.0) for number in range(MAX_ZONES))
    assert "zones in a minute" in limits.refuses("a.one.more", 0.0)
    limits = Limits(2 * MAX_NAMES)
    assert not any(limits.refuses(f"n{number}.example.com", 0.0) for number in range(MAX_NAMES))
    assert "names or" in limits.refuses("onemore.example.com", 0.0)


def test_a_zone_is_the_registered_domain_as_far_as_can_be_told() -> None:
    """Two labels, three below a country's second level, a network of reverse names."""
    assert zone_of("a.b.example.com") == "example.com"
    assert zone_of("a.example.co.uk") == "example.co.uk"
    assert zone_of("localhost") == "localhost"
    assert zone_of("10.0.120.3.in-addr.arpa") == "3.in-addr.arpa"


def test_entropy_is_shannons() -> None:
    """Known values: one symbol 0 bits, two 1, sixteen 4."""
    assert entropy("aaaa") == 0
    assert entropy("abab") == 1
    assert entropy("0123456789abcdef") == 4
    assert entropy("") == 0
