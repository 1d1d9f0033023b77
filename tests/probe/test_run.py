"""The catalogue played: ungoverned processes get out nearly everywhere, executors nowhere.

In full it takes eight minutes: `make test-full`. What stands for it in `make test` is one technique of each kind.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from enforcer.demo.instance import shipped_policies
from enforcer.probe.catalogue import CATALOGUE, select
from enforcer.probe.inside.kit import Technique
from enforcer.probe.launch import Attached, Isolated, Mode, Outside
from enforcer.probe.results import Finding, Result
from enforcer.probe.run import Run

pytestmark = pytest.mark.world
# They speak to the enforcer's own proxy on an allowed connection; where nothing is governed there is none.
NEEDS_PROXY = {"http-absolute", "http-connect", "http-host", "http-smuggled"}
# What the kernel programs alone answer for: an attached executor shares its host's processes, files and Unix sockets.
NETWORK = (
    "address forms",
    "sockets",
    "protocols",
    "UDP",
    "source routing",
    "packets",
    "foreign families",
    "loopback",
    "proxy",
    "enforcer",
    "timing",
)
# Work on every kernel that the enforcer supports, for root: they may not be skipped.
# One or two of each kind that start quickly.
SAMPLE = (
    "tcp4",
    "tcp6",
    "tcp-mapped",
    "udp-sendto",
    "udp-connected",
    "raw-ip",
    "packet-raw",
    "unix-tmp",
    "inbound",
    "stdin-handing",
    "proxy-dialled",
    "namespace-*",
)
EVERYWHERE = {"tcp4", "tcp6", "tcp-mapped", "udp-sendto", "raw-ip", "packet-raw", "unix-tmp", "cgroup-left", "inbound"}


class Ungoverned:
    """What should be an executor and is none: the proof that the probe finds what is open."""

    name = "ungoverned"
    takes_over = False
    command = Outside().command


def play(mode: Mode, users: Sequence[str], techniques: Sequence[Technique]) -> list[Result]:
    return Run(mode, users, techniques, shipped_policies()).results()


def told(results: list[Result], *findings: Finding) -> list[str]:
    """The results of these findings, in a line each."""
    return [f"{one.technique} ({one.user}): {one.reason}" for one in results if one.finding in findings]


def test_a_sample_gets_out_where_nothing_governs_and_nowhere_else() -> None:
    """The same techniques, as root and as an ordinary user: found to escape ungoverned, contained in an executor."""
    techniques = select(SAMPLE)
    open_to_all = play(Ungoverned(), ["root", "nobody"], techniques)
    assert told(open_to_all, Finding.ERROR) == []
    escaped = {(one.technique, one.user) for one in open_to_all if one.finding is Finding.ESCAPED}
    assert len(escaped) >= 12
    contained = play(Isolated(), ["root", "nobody"], techniques)
    assert told(contained, Finding.ESCAPED, Finding.ERROR) == []
    assert escaped <= {(one.technique, one.user) for one in contained if one.finding is Finding.CONTAINED}


def test_a_sample_of_sockets_in_an_attached_executor_does_not_get_out() -> None:
    """The same for an ordinary user's command in a cgroup that policy names."""
    results = play(Attached(), ["nobody"], select(("tcp4", "tcp6", "tcp-mapped", "udp-sendto", "inbound")))
    assert told(results, Finding.ESCAPED, Finding.ERROR) == []
    assert [one for one in results if one.finding is Finding.CONTAINED]


@pytest.fixture(scope="module")
def ungoverned() -> list[Result]:
    return play(Ungoverned(), ["root", "nobody"], CATALOGUE)


@pytest.fixture(scope="module")
def isolated() -> list[Result]:
    return play(Isolated(), ["root", "nobody"], CATALOGUE)


@pytest.mark.full
def test_every_technique_gets_out_where_nothing_governs(ungoverned: list[Result]) -> None:
    """Each technique that works here at all is found to have escaped: none is contained by a fault of its own."""
    assert told(ungoverned, Finding.ERROR) == []
    contained = {one.technique for one in ungoverned if one.finding is Finding.CONTAINED}
    # It waits for the executor's end, and a busy machine may close the books before it has connected.
    assert contained - {"outlived"} == NEEDS_PROXY


@pytest.mark.full
def test_what_works_on_every_kernel_is_not_skipped(ungoverned: list[Result]) -> None:
    """A run that skips everything proves nothing."""
    found = {one.technique for one in ungoverned if one.finding is Finding.ESCAPED and one.user == "root"}
    assert found >= EVERYWHERE
    assert len(found) >= 60


@pytest.mark.full
def test_no_technique_gets_out_of_an_isolated_executor(isolated: list[Result]) -> None:
    """Zero escapes, as root and as an ordinary user, and no technique that failed to be tried."""
    assert told(isolated, Finding.ESCAPED, Finding.ERROR) == []


@pytest.mark.full
def test_isolated_executors_are_tried_as_thoroughly(ungoverned: list[Result], isolated: list[Result]) -> None:
    """What escapes where nothing governs is contained, not skipped, in an executor."""
    escaped = {(one.technique, one.user) for one in ungoverned if one.finding is Finding.ESCAPED}
    skipped = {(one.technique, one.user) for one in isolated if one.finding is Finding.SKIPPED}
    assert escaped & skipped == set()


@pytest.mark.full
def test_no_socket_of_an_ordinary_attached_executor_gets_out() -> None:
    """Zero escapes over any network for an ordinary user's command in a cgroup that policy names."""
    results = play(Attached(), ["nobody"], select(NETWORK))
    assert told(results, Finding.ESCAPED, Finding.ERROR) == []
    assert len([one for one in results if one.finding is Finding.CONTAINED]) >= 60
