"""What a generation is made of: the words policies may use, and what the kernel refuses by itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from enforcer.capture.abi import CoarseVerdict
from enforcer.config import Settings
from enforcer.errors import ConfigError, EnforcerError, PolicyError
from enforcer.geo.merge import RegionSet
from enforcer.supervisor import generation
from enforcer.supervisor.generation import coarse_verdicts, policy_paths, read_content, vocabulary


@dataclass
class FakeTable:
    sets: tuple[RegionSet, ...]


def test_the_kernel_refuses_only_what_no_rule_can_allow() -> None:
    """Multicast ends at connect(); everything else goes to the proxy, which can say why it denies."""
    kinds = ["unknown", "country", "operator", "private", "loopback", "link-local", "metadata", "reserved", "shared"]
    kinds += ["documentation", "embedded"]
    sets = [RegionSet(frozenset(), kind, "") for kind in kinds]
    verdicts = coarse_verdicts(FakeTable((*sets, RegionSet(frozenset(), "multicast", ""))))  # type: ignore[arg-type]
    assert [verdicts[ident] for ident in range(len(kinds))] == [CoarseVerdict.REDIRECT] * len(kinds)
    assert verdicts[len(kinds)] is CoarseVerdict.REFUSE
    assert set(verdicts) == set(range(len(kinds) + 1))


def test_a_table_without_sets_lets_nothing_through() -> None:
    """What is missing here is refused by the kernel."""
    assert coarse_verdicts(FakeTable(())) == {}  # type: ignore[arg-type]


def test_policies_may_use_countries_groups_protocols_and_detectors() -> None:
    """The words that the other packages own."""
    words = vocabulary(Settings())
    assert {"DE", "aws/eu-central-1"} <= words.regions("DE")
    assert "FR" not in words.regions("DE")
    assert {"DE", "NO"} <= words.regions("EEA")
    assert words.protocols == {"http", "tls", "postgres", "mysql", "mongodb", "redis", "opaque"}
    assert {"credit_card", "iban", "email", "us_ssn"} <= words.detectors
    words.check_json_path("$.a[*].b")
    with pytest.raises(ValueError, match="path"):
        words.check_json_path("not a path")
    with pytest.raises(ValueError, match="ATLANTIS"):
        words.regions("ATLANTIS")


def test_an_operators_own_group_is_a_word_too() -> None:
    """`groups:` of the configuration."""
    words = vocabulary(Settings(groups={"HOME": ("DE", "AT")}))
    assert words.regions("HOME") == words.regions("DE") | words.regions("AT")


@pytest.mark.parametrize("members", [("ATLANTIS",), ("de",), ()])
def test_a_group_of_places_that_do_not_exist_is_one_clear_error(members: tuple[str, ...]) -> None:
    """Before anything is attached or swapped."""
    with pytest.raises(EnforcerError) as caught:
        vocabulary(Settings(groups={"HOME": members}))
    assert "HOME" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_policies_are_read_from_the_instances_own_directory_in_order(tmp_path: Path) -> None:
    """The order of the list is the order of the rules."""
    settings = Settings(root=tmp_path, policies=("b", "a"))
    assert policy_paths(settings) == [tmp_path / "etc/enforcer/policies" / name for name in ("b.yaml", "a.yaml")]


def test_a_missing_policy_fails_before_a_table_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All faults of all files at once, and no minutes of work first."""
    monkeypatch.setattr(generation, "table_path", lambda _settings: pytest.fail("the table was asked for"))
    with pytest.raises(PolicyError) as caught:
        read_content(Settings(root=tmp_path, policies=("one", "two")))
    assert [fault.split(":")[0] for fault in caught.value.faults] == [
        str(path) for path in policy_paths(Settings(root=tmp_path, policies=("one", "two")))
    ]


def test_an_unknown_record_mask_is_one_clear_error(tmp_path: Path) -> None:
    """A worker that cannot mask what it records must never start."""
    with pytest.raises(ConfigError, match=r"record_mask: unknown detector 'shoe_size'; docs/masking.md"):
        read_content(Settings(root=tmp_path, record_mask=("credit_card", "shoe_size")))
