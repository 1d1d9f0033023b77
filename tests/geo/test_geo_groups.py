"""Region names: countries, shipped groups and the operator's own."""

from __future__ import annotations

import pytest

from enforcer.errors import TableError
from enforcer.geo.groups import Groups
from enforcer.geo.iso import countries


def codes(groups: Groups, name: str) -> set[str]:
    """The countries among what a name stands for."""
    return {member for member in groups.expand(name) if "/" not in member}


def test_shipped_groups() -> None:
    """27 Union members; the EEA is those and IS, LI, NO; EFTA is those three and CH, as the treaties say."""
    groups = Groups.load()
    assert len(codes(groups, "EU")) == 27
    assert codes(groups, "EEA") - codes(groups, "EU") == {"IS", "LI", "NO"}
    assert groups.expand("EU") < groups.expand("EEA")
    assert codes(groups, "EFTA") == {"CH", "IS", "LI", "NO"}


def test_adequate_is_conservative() -> None:
    """Partial adequacy decisions (US, CA) do not count, and the group holds third countries only."""
    adequate = codes(Groups.load(), "ADEQUATE")
    assert {"CH", "GB", "JP", "KR", "NZ", "UY"} <= adequate
    assert not adequate & {"US", "CA"}
    assert not adequate & Groups.load().expand("EEA")


def test_members_are_countries_and_sourced() -> None:
    """Every member is an ISO code (Norway is not read as YAML's `false`), and every group has source and date."""
    groups = Groups.load()
    for name in groups.names:
        group = groups.group(name)
        assert group is not None
        assert group.members <= countries().keys()
        assert group.source
        assert len(group.date) == 10


def test_codes_are_themselves() -> None:
    """A country's code expands to itself; EU is a group and never a country."""
    assert codes(Groups.load(), "DE") == {"DE"}
    assert "EU" not in countries()
    assert countries()["DE"] == "Germany"
    assert len(countries()) == 250  # 249 assigned by ISO, and XK


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("de", "did you mean DE?"),
        ("Germany", "did you mean DE?"),
        ("ADEQATE", "did you mean ADEQUATE?"),
        ("*", "groups are"),
    ],
)
def test_unknown_names(name: str, hint: str) -> None:
    """An unknown name is a ValueError with the nearest name; `*` is not a name here."""
    with pytest.raises(ValueError, match="neither a country code nor a region group") as caught:
        Groups.load().expand(name)
    assert hint in str(caught.value)


def test_operator_groups() -> None:
    """The operator's groups name codes or shipped groups."""
    groups = Groups.load({"HOME": ["DE", "EFTA"]})
    assert codes(groups, "HOME") == {"DE", "CH", "IS", "LI", "NO"}


def test_operator_group_faults() -> None:
    """All faulty groups are reported at once; shipped groups and countries cannot be redefined."""
    with pytest.raises(TableError) as caught:
        Groups.load({"EU": ["US"], "US": ["DE"], "A1": [], "A2": "DE", "A3": ["XX"]})
    lines = str(caught.value).splitlines()
    assert len(lines) == 5
    assert "'EU': the name is taken" in lines[0]
    assert "'XX' is neither a country code nor a region group" in lines[4]
