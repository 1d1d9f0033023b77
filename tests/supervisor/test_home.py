"""Where this host is, by its addresses and the place of its records: at home, elsewhere, or not to be told."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from enforcer.config import Home, Settings
from enforcer.errors import ConfigError, HostError
from enforcer.flow import Address, Endpoint, Executor, Flow, Region
from enforcer.policy.compiled import Policy, PolicySet
from enforcer.policy.engine import decide
from enforcer.supervisor import home
from enforcer.verdict import Action

REGIONS = {
    "3.120.0.1": Region(frozenset({"DE"}), "country", "3.120.0.0/14", "test 1"),
    "52.0.0.1": Region(frozenset({"US"}), "country", "52.0.0.0/10", "test 1"),
    "5.5.5.5": Region(frozenset({"DE", "US"}), "country", "5.5.5.0/24", "test 1"),
    "10.1.0.1": Region(frozenset({"DE"}), "operator", "10.0.0.0/8", "own.csv"),
    "10.2.0.1": Region(frozenset(), "private", "10.0.0.0/8", "RFC 6890"),
    "127.0.0.1": Region(frozenset(), "loopback", "127.0.0.0/8", "RFC 6890"),
}


class Table:
    def lookup(self, address: Address) -> Region:
        return REGIONS.get(str(address), Region(frozenset(), "unknown", "0.0.0.0/0", ""))


TABLE: Any = Table()


def addresses(*texts: str) -> list[Address]:
    return [ip_address(text) for text in texts]


@pytest.mark.parametrize(
    ("named", "found", "expected"),
    [
        ([], ["127.0.0.1", "10.2.0.1", "3.120.0.1"], []),
        (["3.120.0.1"], ["127.0.0.1", "10.2.0.1"], []),
        ([], ["10.1.0.1"], []),
        ([], ["52.0.0.1"], ["address 52.0.0.1 is in US (52.0.0.0/10, test 1), not wholly in home.regions"]),
        (["52.0.0.1"], ["3.120.0.1"], ["address 52.0.0.1 is in US (52.0.0.0/10, test 1), not wholly in home.regions"]),
        ([], ["5.5.5.5"], ["address 5.5.5.5 is in DE/US (5.5.5.0/24, test 1), not wholly in home.regions"]),
        ([], ["9.9.9.9"], ["address 9.9.9.9 is in unknown (0.0.0.0/0, no table), not wholly in home.regions"]),
        (["10.2.0.1"], [], ["address 10.2.0.1 is in private (10.0.0.0/8, RFC 6890), not wholly in home.regions"]),
        (
            [],
            ["127.0.0.1", "10.2.0.1"],
            ["no public address shows where this host is; name those it goes out from as home.addresses"],
        ),
    ],
)
def test_a_host_is_where_all_its_addresses_are(named: list[str], found: list[str], expected: list[str]) -> None:
    """Each that lies somewhere must lie at home, doubt counts as elsewhere, and a host without any is nowhere."""
    assert home.misplaced(addresses(*named), addresses(*found), {"DE"}, TABLE) == expected


MOUNTS = home.read_mounts(
    "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
    "40 22 0:50 / /far rw master:2 - nfs4 files.example:/export rw,vers=4.2,addr=3.120.0.1,clientaddr=10.2.0.1\n"
    "41 22 0:51 / /abroad rw - nfs4 files.example:/export rw,addr=52.0.0.1\n"
    "42 22 0:52 / /share\\040name rw - fuse.sshfs ada@files:/x rw,user_id=0\n"
    "43 41 8:2 / /abroad/local rw - xfs /dev/sdb1 rw\n"
    "44 22 0:53 / /twice rw - nfs4 files.example:/export rw,addr=3.120.0.1\n"
    "45 44 8:3 / /twice rw - ext4 /dev/sdc1 rw\n"
)


@pytest.mark.parametrize(
    ("store", "fault"),
    [
        ("/var/lib/enforcer", ""),
        ("/far/enforcer", ""),
        ("/abroad/enforcer", "/abroad/enforcer, on nfs4 from files.example:/export at 52.0.0.1, is in US"),
        ("/abroad/local/enforcer", ""),
        ("/abroadly", ""),
        ("/share name/x", "/share name/x is on fuse.sshfs from ada@files:/x, and nothing says where that is"),
        ("/twice/x", ""),
    ],
)
def test_records_are_where_their_mount_is(store: str, fault: str) -> None:
    """The innermost and last mount counts; a disk of this host is at home, a server has to be, and must say where."""
    found = home.store_faults(Path(store), MOUNTS, {"DE"}, TABLE)
    assert [line[: len(fault)] for line in found] == ([fault] if fault else [])


def test_a_disk_that_is_made_of_remote_ones_is_remote(tmp_path: Path) -> None:
    """By the driver that its device, or one below it, hangs on."""
    remote = tmp_path / "devices/platform/host3/session1/target3:0:0/sdq"
    local = tmp_path / "devices/pci0000:00/ata1/sda"
    striped = tmp_path / "devices/virtual/block/dm-1"
    for path in (remote, local, striped / "slaves"):
        path.mkdir(parents=True)
    (striped / "slaves/sdq").symlink_to(remote)
    sysfs = tmp_path / "dev"
    sysfs.mkdir()
    for number, path in (("8:1", remote), ("8:2", local), ("253:1", striped)):
        (sysfs / number).symlink_to(path)
    assert [home.is_remote_disk(one, sysfs) for one in ("8:1", "8:2", "253:1", "0:50")] == [True, False, True, False]
    assert home.store_faults(Path("/x"), [home.Mount(Path("/"), "0:1", "ext4", "/dev/x", "")], {"DE"}, TABLE) == []


def test_without_a_home_nothing_is_looked_at() -> None:
    """The default."""
    assert home.faults(Settings(), TABLE, lambda word: frozenset({word})) == ()


def test_this_host_is_found_out() -> None:
    """Its real interfaces and mounts: at home everywhere it may be, or one line says what is not."""
    settings = Settings(home=Home(regions=("DE",), addresses=tuple(addresses("52.0.0.1"))))
    found = home.faults(settings, TABLE, lambda word: frozenset({word}))
    assert "address 52.0.0.1 is in US (52.0.0.0/10, test 1), not wholly in home.regions" in found


def test_a_word_that_is_no_region() -> None:
    """One line names the setting."""

    def expand(word: str) -> frozenset[str]:
        raise ValueError(f"{word!r} is neither a country code nor a region group; did you mean DE?")

    with pytest.raises(ConfigError, match=r"^home\.regions: 'DEU' is neither a country code"):
        home.faults(Settings(home=Home(regions=("DEU",))), TABLE, expand)


@pytest.mark.parametrize(("elsewhere", "starts"), [("refuse", False), ("warn", True)])
def test_who_may_start_an_executor_elsewhere(elsewhere: Any, starts: bool) -> None:
    """Nobody, with the reason and the mend, unless the configuration only warns."""
    settings = Settings(home=Home(regions=("DE",), elsewhere=elsewhere))
    if starts:
        home.admit(settings, ("address 52.0.0.1 is in US",))
    else:
        with pytest.raises(HostError, match=r"^no executor runs here: address 52\.0\.0\.1 is in US; correct home"):
            home.admit(settings, ("address 52.0.0.1 is in US",))
    home.admit(settings, ())


def test_what_is_in_force_elsewhere_denies_everything_and_keeps_what_is_governed() -> None:
    """Also what the enabled policies only observe; the trees they name stay attached."""
    enabled = PolicySet.of((Policy("open", True, ("*",), frozenset(), (), ("system.slice/agent.service",)),))
    closed = home.closed(enabled)
    assert closed.cgroup_patterns() == ("system.slice/agent.service",)
    for executor in (
        Executor("a-1", "a", 0, "", 7),
        Executor("b", "b", 0, "", 8, "system.slice/agent.service", "attached"),
    ):
        for text in ("3.120.0.1", "52.0.0.1", "9.9.9.9", "10.2.0.1"):
            address = ip_address(text)
            flow = Flow(executor, Endpoint(address, 80), TABLE.lookup(address), 1, 1, 1, 1)
            verdict = decide(closed, flow, "http", {})
            assert (verdict.action, verdict.passes) == (Action.DENY, False)
            assert (verdict.policy, verdict.rule) == ("home", "host-is-elsewhere")
