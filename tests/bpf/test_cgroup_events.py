"""Tracepoints: a cgroup below a watched path is governed before anyone is in it, and leaving an executor is noticed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from enforcer.capture import cgroup, sysbpf
from enforcer.capture.abi import CgroupEventKind, ExecutorMode
from enforcer.capture.sysbpf import Map
from enforcer.capture.tables import CgroupEvent
from tests.fixtures.kernel import PATIENCE, Executor, Kernel, fill_queue

pytestmark = pytest.mark.kernel

MADE, GONE, ESCAPE = CgroupEventKind.MADE, CgroupEventKind.GONE, CgroupEventKind.ESCAPE


def relative(path: Path) -> str:
    return str(path.relative_to(cgroup.find_mount()))


@pytest.fixture
def watched(kernel: Kernel) -> Iterator[Path]:
    """A cgroup below which policies name cgroups."""
    with kernel.slice() as path:
        kernel.tables.watch_prefix(f"{relative(path)}/")
        kernel.tables.watch_level(cgroup.level(path) + 1)
        kernel.tables.pop_cgroup_events(10**6)
        yield path
        kernel.tables.unwatch_prefix(f"{relative(path)}/")


def events(kernel: Kernel, *kinds: CgroupEventKind) -> list[CgroupEvent]:
    return [event for event in kernel.tables.pop_cgroup_events(10**6) if event.kind in kinds]


@contextmanager
def member(kernel: Kernel) -> Iterator[Executor]:
    """An executor whose path is known, so that who enters it is tracked."""
    with kernel.executor(mode=ExecutorMode.ATTACHED) as executor:
        kernel.tables.set_path(relative(executor.path), executor.cgroup_id)
        cgroup.join(kernel.outside_group, executor.pid)
        cgroup.join(executor.path, executor.pid)
        kernel.tables.pop_cgroup_events(10**6)
        try:
            yield executor
        finally:
            kernel.tables.delete_path(relative(executor.path))
            kernel.tables.untrack_tasks(executor.cgroup_id)


def tracked(kernel: Kernel) -> dict[int, int]:
    """Executor by process or thread id."""
    tasks = Map(sysbpf.get_pinned(kernel.directory / "map_governed_tasks"), 4, 8)
    try:
        return {
            int.from_bytes(pid, sys.byteorder): int.from_bytes(ident, sys.byteorder) for pid, ident in tasks.items()
        }
    finally:
        tasks.close()


def test_a_cgroup_below_a_watched_path_is_refused_from_its_first_moment(
    kernel: Kernel, host: int, watched: Path
) -> None:
    """mkdir alone governs it as pending and says so; a process that is moved there connects nowhere."""
    path = watched / "agent.service"
    path.mkdir()
    ident = cgroup.cgroup_id(path)
    assert kernel.tables.executors()[ident] == ExecutorMode.REFUSED
    assert [(event.cgroup, event.kind) for event in events(kernel, MADE)] == [(ident, MADE)]
    with kernel.outsider(host, path) as process, kernel.counted() as moved:
        assert process.run("answer['e'] = connect(2, '3.120.0.10', 80)[1]") == {"e": 1}
    assert moved == {"REFUSED_PENDING": 1}
    path.rmdir()
    kernel.tables.delete_executor(ident)


def test_a_cgroup_that_is_gone_is_told(kernel: Kernel, watched: Path) -> None:
    """rmdir of a governed cgroup is an event; of another it is none."""
    path, other = watched / "agent.service", kernel.outside_group / "other"
    for one in (path, other):
        one.mkdir()
    ident = cgroup.cgroup_id(path)
    for one in (path, other):
        one.rmdir()
    assert [event.cgroup for event in events(kernel, GONE)] == [ident]
    kernel.tables.delete_executor(ident)


def test_paths_match_by_whole_components(kernel: Kernel) -> None:
    """A watched agent.service/ is not the beginning of agent.service2 or agent.servic; a watched agent- is of
    agent-1."""
    with kernel.slice() as top:
        (top / "agent.service").mkdir()
        kernel.tables.watch_prefix(f"{relative(top)}/agent.service/")
        kernel.tables.watch_prefix(f"{relative(top)}/agent-")
        kernel.tables.pop_cgroup_events(10**6)
        made = (
            "agent.service2",
            "agent.servic",
            "agent.service/x",
            "agent.service2/x",
            "agent-1",
            "agent-2",
            "agen",
            "agent",
        )
        for name in made:
            (top / name).mkdir()
        idents = {cgroup.cgroup_id(top / name): name for name in made}
        found = {idents.get(event.cgroup) for event in events(kernel, MADE)}
        for prefix in ("agent.service/", "agent-"):
            kernel.tables.unwatch_prefix(f"{relative(top)}/{prefix}")
        for ident in idents:
            kernel.tables.delete_executor(ident)
    assert found == {"agent.service/x", "agent-1", "agent-2"}


def test_a_cgroup_inside_an_executors_is_the_executors(kernel: Kernel, watched: Path) -> None:
    """Below a path that belongs to an executor nothing is pending."""
    path = watched / "agent.service"
    path.mkdir()
    kernel.tables.set_path(relative(path), cgroup.cgroup_id(path))
    kernel.tables.pop_cgroup_events(10**6)
    (path / "inner").mkdir()
    assert events(kernel, MADE) == []
    kernel.tables.delete_path(relative(path))
    kernel.tables.delete_executor(cgroup.cgroup_id(path))


@contextmanager
def version1(name: str, mount: Path) -> Iterator[None]:
    """A cgroup v1 hierarchy of our own. With cgroups that the kernel has not freed yet it outlives its mount, and goes
    with the next."""
    command = ["mount", "-t", "cgroup", "-o", f"none,name={name}", "none", str(mount)]
    subprocess.run(command, check=True)
    try:
        yield
    finally:
        deadline = time.monotonic() + PATIENCE
        subprocess.run(["umount", str(mount)], check=True)
        while f":name={name}:" in Path("/proc/self/cgroup").read_text() and time.monotonic() < deadline:
            time.sleep(0.05)
            subprocess.run(command, check=True)
            subprocess.run(["umount", str(mount)], check=True)


@pytest.mark.full
def test_other_hierarchies_have_no_say(kernel: Kernel, watched: Path, tmp_path: Path) -> None:
    """A cgroup v1 hierarchy of the same paths: what is made, removed and moved there is nobody's business."""
    with version1(kernel.instance, tmp_path):
        path = tmp_path / relative(watched) / "agent.service"
        path.mkdir(parents=True)
        with member(kernel) as executor:
            (path / "tasks").write_text(str(executor.pid))
            (tmp_path / "tasks").write_text(str(executor.pid))
            assert events(kernel, MADE, GONE, ESCAPE) == []
            assert tracked(kernel)[executor.pid] == executor.cgroup_id
        for one in (path, *path.parents):
            if tmp_path in one.parents:
                one.rmdir()


def test_root_outside_may_move_a_process_out(kernel: Kernel) -> None:
    """A move by a process that nobody governs is noticed, with who and whom, and kills nobody."""
    with member(kernel) as executor:
        with kernel.counted() as moved:
            cgroup.join(kernel.outside_group, executor.pid)
        [event] = events(kernel, ESCAPE)
        assert (event.executor, event.pid, event.by, event.killed) == (
            executor.cgroup_id,
            executor.pid,
            os.getpid(),
            False,
        )
        assert event.cgroup == cgroup.cgroup_id(kernel.outside_group)
        assert moved == {"ESCAPE_NOTICED": 1}
        assert executor.run("answer['alive'] = True") == {"alive": True}


@pytest.mark.parametrize("whom", ["itself", "its child", "through a thread"])
def test_an_executors_process_that_moves_one_out_dies(kernel: Kernel, whom: str) -> None:
    """Moving itself or a child, from its main thread or another: noticed, and whoever did it is killed before its
    next step."""
    target = kernel.outside_group / "cgroup.procs"
    code = {
        "itself": f"open({str(target)!r}, 'w').write(str(os.getpid()))\nopen({{mark!r}}, 'w').close()",
        "its child": f"""
child = os.fork()
if not child:
    time.sleep(60)
open({str(target)!r}, 'w').write(str(child))
open({{mark!r}}, 'w').close()
""",
        "through a thread": f"""
thread = threading.Thread(target=lambda: open({str(target)!r}, 'w').write(str(os.getpid())))
thread.start(), thread.join()
open({{mark!r}}, 'w').close()
""",
    }[whom]
    mark = Path(f"/tmp/{kernel.instance}-mark")
    with member(kernel) as executor:
        with kernel.counted() as moved:
            executor.start(code.replace("{mark!r}", repr(str(mark))))
            assert executor.ended() == -signal.SIGKILL
        assert moved == {"ESCAPE_NOTICED": 1, "ESCAPE_KILLED": 1}
        [event] = events(kernel, ESCAPE)
        assert (event.executor, event.by, event.killed) == (executor.cgroup_id, executor.pid, True)
        if whom == "its child":
            assert event.pid != executor.pid
            os.kill(event.pid, signal.SIGKILL)
        assert not mark.exists()


def test_moves_inside_the_executor_are_not_escapes(kernel: Kernel) -> None:
    """A process may move itself and others between the executor's own cgroups."""
    with member(kernel) as executor, kernel.counted() as moved:
        executor.run(
            f"""
            os.mkdir({str(executor.path / "inner")!r})
            for path in ({str(executor.path / "inner")!r}, {str(executor.path)!r}):
                open(path + "/cgroup.procs", "w").write(str(os.getpid()))
            """
        )
        assert events(kernel, ESCAPE) == []
        assert tracked(kernel)[executor.pid] == executor.cgroup_id
    assert moved == {}


def test_children_and_threads_are_followed_until_they_end(kernel: Kernel) -> None:
    """Whoever is forked belongs to the executor, grandchildren and threads as well; who ended is forgotten."""
    with member(kernel) as executor:
        pids = executor.run(
            """
            release, hold = os.pipe()
            answer["pids"] = [os.getpid()]
            child_read, child_write = os.pipe()
            child = os.fork()
            if not child:
                os.close(hold)
                grandchild = os.fork()
                if not grandchild:
                    os.read(release, 1), os._exit(0)
                os.write(child_write, struct.pack("=i", grandchild))
                os.read(release, 1), os.waitpid(grandchild, 0), os._exit(0)
            grandchild, = struct.unpack("=i", os.read(child_read, 4))
            thread = threading.Thread(target=os.read, args=(release, 1), daemon=True)
            thread.start()
            answer["pids"] += [child, grandchild, thread.native_id]
            """
        )["pids"]
        found = tracked(kernel)
        assert {pid: found.get(pid) for pid in pids} == dict.fromkeys(pids, executor.cgroup_id)
        executor.run("os.close(hold), os.waitpid(child, 0), thread.join()")
        assert tracked(kernel).keys() & set(pids) == {executor.pid}
        pid = executor.pid
    deadline = time.monotonic() + PATIENCE
    while pid in tracked(kernel):
        assert time.monotonic() < deadline


def test_a_thread_whose_leader_has_ended_still_counts(kernel: Kernel) -> None:
    """A process whose first thread is gone: what its other threads fork is followed, and what they move out is
    noticed."""
    code = f"""
    def later():
        time.sleep(0.2)
        child = os.fork()
        if not child:
            time.sleep(60)
        open({str(kernel.outside_group / "cgroup.procs")!r}, "w").write(str(child))
        os.write(2, b"survived")
    threading.Thread(target=later).start()
    libc.syscall(60, 0)
    """
    with member(kernel) as executor:
        with kernel.counted() as moved:
            executor.start(code)
            executor.ended()
        assert moved == {"ESCAPE_NOTICED": 1, "ESCAPE_KILLED": 1}
        [event] = events(kernel, ESCAPE)
        os.kill(event.pid, signal.SIGKILL)


def test_more_tasks_than_fit_are_counted(kernel: Kernel) -> None:
    """With `governed_tasks` full, a process that enters is counted as not tracked; its sockets are judged all the
    same."""
    tasks = Map(sysbpf.get_pinned(kernel.directory / "map_governed_tasks"), 4, 8)
    with member(kernel) as executor:
        for pid in range(1 << 22, (1 << 22) + 65536):
            try:
                tasks.update(pid.to_bytes(4, sys.byteorder), bytes(8))
            except OSError:
                break
        with kernel.counted() as moved:
            executor.run("child = os.fork()\nif not child: os._exit(0)\nos.waitpid(child, 0)")
        for pid in range(1 << 22, (1 << 22) + 65536):
            tasks.delete(pid.to_bytes(4, sys.byteorder))
    tasks.close()
    assert moved == {"TASK_UNTRACKED": 1}


def test_events_beyond_the_queue_are_counted(kernel: Kernel, watched: Path) -> None:
    """With `cgroup_events` full, a cgroup that is made is governed all the same, and its event counted as lost."""
    fill_queue(kernel, "cgroup_events")
    with kernel.counted() as moved:
        (watched / "late.service").mkdir()
    ident = cgroup.cgroup_id(watched / "late.service")
    kernel.tables.pop_cgroup_events(10**6)
    assert moved == {"CGROUP_EVENT_LOST": 1}
    assert kernel.tables.executors()[ident] == ExecutorMode.REFUSED
    kernel.tables.delete_executor(ident)
