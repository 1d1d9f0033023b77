"""Restarts: the same version goes on with what is there; another replaces it in place, and no connect() falls
between."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from enforcer.capture import programs, sysbpf
from enforcer.capture.abi import ExecutorMode
from enforcer.capture.generation import AudienceEntry, DirectPlan, build_generation, build_tries
from enforcer.capture.original_dst import flow_record
from enforcer.errors import KernelError
from tests.bpf.conftest import TABLE
from tests.bpf.far import Far
from tests.fixtures.kernel import PATIENCE, Executor, Kernel, destination, use_other_sources, use_other_version

pytestmark = pytest.mark.kernel


ATTACHED = [hook for hook in programs.HOOKS if hook.where in (programs.Where.EXECUTORS, programs.Where.OWN)]


@pytest.fixture(scope="module")
def own(kernel: Kernel) -> Iterator[Kernel]:
    """A set of these tests' own, beside the one of the others; each leaves it whole."""
    with Kernel(TABLE) as own:
        yield own


def ours(kernel: Kernel) -> dict[str, set[int]]:
    """Ids of all programs and maps in the kernel that the pinned set of this instance holds on to."""
    programs_, maps = set(), set()
    for directory in kernel.pins.sets():
        for path in directory.iterdir():
            if path.name.startswith("prog_"):
                fd = sysbpf.get_pinned(path)
                programs_.add(sysbpf.program_id(fd))
                os.close(fd)
    for program in shown("prog"):
        if program["id"] in programs_:
            maps |= set(program.get("map_ids", []))
    return {"programs": programs_, "maps": maps}


def shown(kind: str) -> list[dict[str, Any]]:
    listing = subprocess.run(["bpftool", "-j", kind, "show"], capture_output=True, text=True, check=True).stdout
    found: list[dict[str, Any]] = json.loads(listing)
    return found


def existing(kind: str) -> set[int]:
    return {one["id"] for one in shown(kind)}


def eventually_gone(kind: str, ids: set[int]) -> None:
    """The kernel frees what nobody holds after a grace period."""
    deadline = time.monotonic() + PATIENCE
    while left := existing(kind) & ids:
        assert time.monotonic() < deadline, f"{kind} {sorted(left)} are left"
        time.sleep(0.05)


@contextmanager
def dialling(executor: Executor) -> Iterator[dict[str, int]]:
    """The executor connects in a loop for as long as this lasts, and its listener accepts; errno -> how often."""
    stop = threading.Event()
    results: dict[str, int] = {}
    wrong: list[str] = []

    def accept() -> None:
        executor.listener4.settimeout(0.05)
        while not stop.is_set():
            try:
                accepted, _ = executor.listener4.accept()
            except TimeoutError:
                continue
            record = flow_record(accepted)
            if record is not None and destination(record) != "3.120.0.10 80":
                wrong.append(destination(record))
            accepted.close()

    thread = threading.Thread(target=accept)
    thread.start()
    executor.run(
        """
        going, results = [True], {}
        def dial():
            while going:
                sock = socket.socket()
                sock.settimeout(20)
                code = str(attempt(sock.connect, ("3.120.0.10", 80)))
                results[code] = results.get(code, 0) + 1
                sock.close()
        dialler = threading.Thread(target=dial)
        dialler.start()
        """
    )
    try:
        yield results
        executor.run("while sum(results.values()) < 100 and dialler.is_alive():\n    time.sleep(0.01)")
    finally:
        results.update(executor.run("going.clear(), dialler.join()\nanswer.update(results)"))
        stop.set()
        thread.join()
    assert wrong == []


def test_the_same_version_goes_on_with_what_is_there(own: Kernel, host: int, frankfurt: Far) -> None:
    """A restart keeps programs, maps, counters, sockets' owners and flows: a direct flow of before carries data
    after."""
    server = frankfurt.listen(6400)
    with own.executor(mode=ExecutorMode.ATTACHED, netns=host) as executor:
        own.tables.beat(3600)
        own.plan = DirectPlan({executor.cgroup_id: AudienceEntry(1)}, {(1, 8): ((6400, 6400, 1),)})
        own.load_again()
        own.plan = DirectPlan()
        executor.run("sock = connect(2, '3.120.0.10', 6400)[0]\nold = socket.socket()")
        accepted, _ = server.accept()
        with accepted:
            before, counters = ours(own), own.tables.counters()
            directory, older = own.directory, own.tables
            own.install()
            older.close()
            assert (own.directory, ours(own)) == (directory, before)
            assert own.tables.counters() == counters
            assert set(programs.attached(own.pins, own.groups).values()) == {1}
            executor.run("sock.send(b'after')")
            accepted.settimeout(PATIENCE)
            assert accepted.recv(9) == b"after"
        executor.start("old.connect(('52.0.0.10', 80))")
        proxied, record = executor.accept()
        proxied.close()
        assert destination(record) == "52.0.0.10 80"


def test_another_version_takes_over_without_a_gap(own: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Executors and listeners are carried over before the switch: of all connects during it none is refused, though
    one may wait for its SYN to be sent again; counters go on, and nothing of the old set is left in the kernel."""
    with own.executor() as executor:
        with dialling(executor) as results:
            old, older, counters = ours(own), own.tables, own.tables.counters()
            use_other_version(monkeypatch)
            own.install()
            older.close()
        assert set(results) == {"0"}
        assert results["0"] >= 100
        new = ours(own)
        assert new["programs"].isdisjoint(old["programs"])
        assert len(own.pins.sets()) == 1
        assert own.pins.sets()[0].name.endswith(programs.version())
        assert set(programs.attached(own.pins, own.groups).values()) == {1}
        after = own.tables.counters()
        assert all(after[name] >= count for name, count in counters.items())
        refused = (
            "REFUSED_NO_LISTENER",
            "REFUSED_NO_GENERATION",
            "REFUSED_PENDING",
            "REFUSED_SOCKET_TYPE",
            "REFUSED_UDP",
        )
        assert {name: after[name] - counters[name] for name in refused} == dict.fromkeys(refused, 0)
    for kind, held in (("prog", "programs"), ("map", "maps")):
        eventually_gone(kind, old[held] - new[held])


def test_a_switch_that_fails_midway_leaves_every_hook_with_one_program(
    own: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel refuses the tenth update: every hook still has one program, old or new, and the next start finishes
    it."""
    with own.executor() as executor:
        use_other_version(monkeypatch)
        update, calls = sysbpf.link_update, []

        def fail(link: int, program: int) -> None:
            calls.append(link)
            if len(calls) == 10:
                raise OSError(12, "Cannot allocate memory")
            update(link, program)

        older = own.tables
        with monkeypatch.context() as patch:
            patch.setattr(sysbpf, "link_update", fail)
            with pytest.raises(KernelError, match="cannot attach"):
                own.install()
        assert {programs.attached(own.pins, own.groups)[hook.program] for hook in ATTACHED} == {1}
        half = own.tables
        own.install()
        older.close()
        half.close()
        assert set(programs.attached(own.pins, own.groups).values()) == {1}
        assert len(own.pins.sets()) == 1
        executor.start("kept = connect(2, '3.120.0.10', 81)")
        accepted, record = executor.accept()
        accepted.close()
        assert destination(record) == "3.120.0.10 81"


@pytest.mark.compiler
def test_a_version_that_does_not_compile_changes_nothing(
    own: Kernel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A load that fails: the old set stays in force with the same ids, and nothing of the new one is left."""
    before, tables = ours(own), own.tables
    use_other_sources(tmp_path / "bpf", monkeypatch)
    with (tmp_path / "bpf/enforcer.c").open("a") as text:
        text.write("not C\n")
    with pytest.raises(KernelError):
        own.install()
    own.tables = tables
    assert ours(own) == before
    assert len(own.pins.sets()) == 1
    with own.executor() as executor:
        executor.start("kept = connect(2, '3.120.0.10', 80)")
        accepted, record = executor.accept()
        accepted.close()
        assert destination(record) == "3.120.0.10 80"


def test_removing_the_pins_takes_everything_off(own: Kernel, host: int) -> None:
    """Only this opens: without pins no program of the instance is left, and an executor's cgroup is like any. (Last: it
    leaves nothing for another test.)"""
    with own.executor(mode=ExecutorMode.ATTACHED, netns=host) as executor:
        assert executor.run("answer['e'] = connect(2, '224.0.0.1', 80)[1]") == {"e": 1}
        held = ours(own)
        own.pins.remove()
        eventually_gone("prog", held["programs"])
        assert executor.run("answer['e'] = connect(2, '224.0.0.1', 80)[1]")["e"] != 1


def test_a_table_in_force_is_found_by_its_name(own: Kernel) -> None:
    """Whoever starts next finds the tries of the table that it would fill again, and none of another one's."""
    own.tables.swap(build_generation(build_tries(TABLE, "a_table"), own.coarse(), own.plan))
    held = own.tables.tries_in_force()
    found = own.tables.tries_named("a_table")
    assert found is not None
    assert own.tables.tries_named("another") is None
    assert own.tables.tries_named("") is None
    own.load(TABLE)
    assert own.tables.tries_named("a_table") is None
    for fd in (*held.values(), *found.values()):
        os.close(fd)
