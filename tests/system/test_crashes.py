"""kill -9, again and again: executors get an error at once, never a way out, and go on when the enforcer is back."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator

import psutil
import pytest

from enforcer.capture.generation import VERSIONS
from enforcer.capture.programs import Pins
from enforcer.capture.sysbpf import Map
from enforcer.config import load_settings
from enforcer.demo.instance import Instance
from enforcer.demo.world import FRANKFURT, VIRGINIA, World
from tests.fixtures.world import Shell, Watch, enforcing, eventually, measured, session_list, url

pytest_plugins = ["tests.system.plugin"]
pytestmark = pytest.mark.world

# "Immediate", with room for a machine that is busy with other tests. A client that hangs would wait for minutes.
IMMEDIATE = 15.0

# What a client may see while there is no proxy: nobody listens, the flow is cut, or (EPERM) the kernel programs of the
# next supervisor do not know the executor's listener yet.
REFUSED = ("ConnectionRefusedError", "ConnectionResetError", "RemoteDisconnected", "PermissionError")

# One request on a connection of its own: its status, or the error's name, and the seconds it took.
ATTEMPT = """
import http.client, time
def attempt(host, port=80):
    begun = time.monotonic()
    connection = http.client.HTTPConnection(host, port, timeout=20)
    try:
        connection.request("GET", "/")
        outcome = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        outcome = type(error).__name__
    finally:
        connection.close()
    return [outcome, time.monotonic() - begun]
"""


@pytest.fixture(scope="module")
def instance(world: World) -> Iterator[Instance]:
    with enforcing(world, "eu-only") as running:
        yield running


@pytest.fixture(autouse=True)
def restarted(instance: Instance) -> Iterator[None]:
    """Whatever a test leaves dead is running again for the next one."""
    yield
    if not psutil.pid_exists(instance.pid):
        instance.start()


@pytest.fixture
def shell(instance: Instance) -> Iterator[Shell]:
    with Shell(instance) as running:
        running.run(ATTEMPT)
        yield running


def attempt(shell: Shell, host: str) -> tuple[int | str, float]:
    outcome, seconds = shell.run("answer = attempt(host)", host=host)
    return outcome, seconds


def test_a_killed_supervisor_ends_flows_in_mid_answer(instance: Instance, shell: Shell) -> None:
    """An executor that is reading an endless answer gets its end or an error within IMMEDIATE, not silence."""
    shell.run(
        """
        import socket
        sock = socket.create_connection((host, 8080), 10)
        sock.sendall(b"GET /endless HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
        received = b""
        while b"mo" not in received:
            received += sock.recv(65536)
        """,
        host=FRANKFURT.address,
    )
    shell.start(
        """
        sock.settimeout(20)
        try:
            while sock.recv(65536):
                pass
            answer = ["closed", time.monotonic()]
        except ConnectionError as error:
            answer = [type(error).__name__, time.monotonic()]
        """
    )
    instance.kill()
    killed = time.monotonic()
    how, ended = shell.result()
    measured(f"flow ended ({how}) {ended - killed:.3f} s after kill -9 of the supervisor")
    assert ended - killed < IMMEDIATE


def test_without_a_supervisor_every_connection_is_refused(
    instance: Instance, shell: Shell, frankfurt: Watch, virginia: Watch
) -> None:
    """Allowed or denied, over IPv4 or IPv6: an error at once, and not one packet leaves for either site."""
    instance.kill()
    eventually(lambda: attempt(shell, FRANKFURT.address)[0] == "ConnectionRefusedError", "the workers' end", IMMEDIATE)
    frankfurt.arrived()
    for host in (FRANKFURT.address, FRANKFURT.address6, VIRGINIA.address, VIRGINIA.address6):
        outcome, seconds = attempt(shell, host)
        assert outcome == "ConnectionRefusedError"
        assert seconds < IMMEDIATE
    assert (frankfurt.arrived(), virginia.arrived()) == ([], [])


def test_programs_stay_attached_without_a_supervisor(instance: Instance) -> None:
    """`status` ends with 7 and says how many programs still refuse: all of them."""
    count = len(instance.status()["programs"])
    instance.kill()
    done = instance.run("status")
    assert done.returncode == 7
    assert f"{count} programs stay attached: executors are refused every connection until then" in done.stderr


def test_no_executor_starts_without_a_supervisor(instance: Instance) -> None:
    """`exec` fails with 7 and the command never runs."""
    instance.kill()
    done = instance.execute("echo", "ran")
    assert (done.returncode, done.stdout) == (7, "")
    assert "start one with 'enforcer run'" in done.stderr


def test_a_restart_takes_the_running_executor_over(instance: Instance, shell: Shell, virginia: Watch) -> None:
    """After kill -9 and start: one program per hook, the same executor is served and judged, its counters go on."""
    assert attempt(shell, FRANKFURT.address)[0] == 200
    before = instance.status()
    instance.kill()
    begun = time.monotonic()
    answering = instance.start()
    eventually(lambda: attempt(shell, FRANKFURT.address)[0] == 200, "an answer after the restart")
    measured(f"restart: supervisor answers after {answering:.2f} s, executor after {time.monotonic() - begun:.2f} s")
    assert attempt(shell, VIRGINIA.address)[0] == 403
    assert virginia.arrived() == []
    after = instance.status()
    assert set(after["programs"].values()) == {1}
    assert after["programs"] == before["programs"]
    assert [one["ident"] for one in after["executors"]] == [one["ident"] for one in before["executors"]]
    assert after["counters"]["REDIRECTED"] >= before["counters"]["REDIRECTED"] + 2
    assert after["counters"]["MAPPED"] >= before["counters"]["MAPPED"] + 2


def tries_held(instance: Instance) -> set[bytes]:
    """Ids of the region tables in the kernel, of both slots."""
    (directory,) = Pins(load_settings(instance.root).instance).sets()
    outer = [Map.open(directory / f"map_prefixes{version}", 4, 4) for version in VERSIONS]
    held = {table.lookup(slot.to_bytes(4, "little")) for table in outer for slot in range(2)}
    return {ident for ident in held if ident is not None}


def test_a_restart_goes_on_with_the_region_tables_that_the_kernel_holds(instance: Instance) -> None:
    """Filling them would take half of a restart, in which everything is refused."""
    before = tries_held(instance)
    instance.kill()
    instance.start()
    assert tries_held(instance) == before


def test_records_survive_the_kill(instance: Instance, shell: Shell) -> None:
    """What was recorded before kill -9 is there afterwards, and the chain still verifies."""
    assert attempt(shell, FRANKFURT.address)[0] == 200
    recorded = eventually(lambda: {one["id"] for one in session_list(instance)}, "a recorded session")
    instance.kill()
    instance.start()
    assert recorded <= {one["id"] for one in session_list(instance)}
    assert instance.run("sessions", "verify").returncode == 0


def test_a_stopped_supervisor_opens_nothing(instance: Instance, shell: Shell, virginia: Watch) -> None:
    """An orderly stop is no different: refused while it is down, served when it is back."""
    instance.stop()
    outcome, seconds = attempt(shell, VIRGINIA.address)
    assert outcome == "ConnectionRefusedError"
    assert seconds < IMMEDIATE
    instance.start()
    eventually(lambda: attempt(shell, FRANKFURT.address)[0] == 200, "an answer after the restart")
    assert virginia.arrived() == []


def test_killed_workers_are_replaced(instance: Instance, shell: Shell, virginia: Watch) -> None:
    """kill -9 of every worker: each request gets an error or an answer at once, then traffic flows again."""
    before = instance.status()
    for worker in before["workers"]:
        os.kill(worker["pid"], signal.SIGKILL)
    begun = time.monotonic()

    def served() -> bool:
        outcome, seconds = attempt(shell, FRANKFURT.address)
        assert seconds < IMMEDIATE, outcome
        return outcome == 200

    eventually(served, "an answer after the workers' replacement")
    measured(f"workers: served again {time.monotonic() - begun:.2f} s after kill -9 of all of them")
    assert attempt(shell, VIRGINIA.address)[0] == 403
    assert virginia.arrived() == []
    after = eventually(
        lambda: (now := instance.status()) and len(now["workers"]) == len(before["workers"]) and now, "all workers"
    )
    assert after["worker_restarts"] >= before["worker_restarts"] + len(before["workers"])
    assert not {one["pid"] for one in after["workers"]} & {one["pid"] for one in before["workers"]}


def test_one_killed_worker_stalls_nobody(instance: Instance, shell: Shell) -> None:
    """While one of the workers is dead and being replaced, no request takes longer than IMMEDIATE."""
    workers = instance.status()["workers"]
    os.kill(workers[0]["pid"], signal.SIGKILL)
    outcomes = [attempt(shell, FRANKFURT.address) for _ in range(50)]
    assert max(seconds for _, seconds in outcomes) < IMMEDIATE
    eventually(lambda: attempt(shell, FRANKFURT.address)[0] == 200, "an answer")


def test_kills_under_fire_let_nothing_out(instance: Instance, shell: Shell, virginia: Watch) -> None:
    """An executor asks for a denied site all the time while the supervisor is killed three times: no packet arrives."""
    shell.run(
        """
        import threading
        seen, going = {}, threading.Event()
        def fire(host):
            while not going.is_set():
                outcome = str(attempt(host)[0])
                seen[outcome] = seen.get(outcome, 0) + 1
                time.sleep(0.002)
        threads = [threading.Thread(target=fire, args=(host,), daemon=True) for host in hosts]
        [thread.start() for thread in threads]
        """,
        hosts=[VIRGINIA.address, VIRGINIA.address6, f"::ffff:{VIRGINIA.address}"],
    )
    for _ in range(5):
        instance.kill()
        instance.start()
        denied = shell.run("answer = seen.get('403', 0)")
        eventually(lambda least=denied: shell.run("answer = seen.get('403', 0)") > least, "a 403 after the restart")
    seen = shell.run("going.set(); [thread.join() for thread in threads]; answer = seen")
    measured(f"under fire: {json.dumps(seen)}")
    assert seen.keys() <= {"403", *REFUSED}
    assert seen["ConnectionRefusedError"] > 0
    assert virginia.arrived() == []
    assert set(instance.status()["programs"].values()) == {1}
    assert shell.curl(url(FRANKFURT.address)).returncode == 0
