"""`enforcer exec`: the command runs as it would without, only that it is an executor."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from enforcer.capture import cgroup
from enforcer.config import load_settings
from enforcer.demo.instance import Instance
from enforcer.demo.world import FRANKFURT, VIRGINIA, World
from tests.cli.executing import NOTHING, PYTHON, execute, inside, left_behind, namespaces_of, still_there
from tests.fixtures.world import NOBODY_SILENT, Shell, Watch, enforcing, eventually, session_list, url

pytest_plugins = ["tests.system.plugin"]
pytestmark = pytest.mark.world

NOBODY = 65534


@pytest.fixture(scope="module")
def instance(world: World) -> Iterator[Instance]:
    with enforcing(world, "eu-only", **NOBODY_SILENT) as running:
        yield running


@pytest.fixture
def caller(monkeypatch: pytest.MonkeyPatch) -> None:
    """What sudo sets when `nobody` calls it."""
    monkeypatch.setenv("SUDO_UID", str(NOBODY))


# --- exit status, input and output, signals


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (("true",), 0),
        (("sh", "-c", "exit 3"), 3),
        (("sh", "-c", "kill -TERM $$"), 128 + 15),
        (("sh", "-c", "kill -KILL $$"), 128 + 9),
        (("/etc/passwd",), 126),
        (("no-such-command-anywhere",), 127),
    ],
    ids=["success", "its own", "SIGTERM", "SIGKILL", "not executable", "not found"],
)
def test_the_commands_exit_status_is_ours(instance: Instance, command: tuple[str, ...], status: int) -> None:
    """As in a shell (POSIX, 2.8.2): the command's status, 128 + N for signal N, 126 and 127 when it cannot start."""
    assert execute(instance, *command).returncode == status


def test_a_command_that_is_not_found_is_named(instance: Instance) -> None:
    """One line on standard error says which command it was."""
    assert execute(instance, "no-such-command").stderr == "enforcer: no-such-command: command not found\n"


def test_input_and_output_pass_through(instance: Instance) -> None:
    """Standard input, output and error are the caller's own, byte for byte."""
    text = "line\nwithout end" * 5000
    assert execute(instance, "cat", text=text).stdout == text
    assert execute(instance, "sh", "-c", "echo to stderr >&2").stderr == "to stderr\n"


def test_options_of_the_command_are_its_own(instance: Instance) -> None:
    """Everything after -- reaches the command, options included."""
    assert execute(instance, "echo", "--name", "-x", "--").stdout == "--name -x --\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGINT])
def test_signals_are_forwarded(instance: Instance, number: signal.Signals) -> None:
    """A signal sent to `enforcer exec` reaches the command, whose reaction decides how it ends."""
    code = f"""
import signal, sys, time
signal.signal({int(number)}, lambda received, frame: sys.exit(received + 40))
print("ready", flush=True)
time.sleep(60)
"""
    process = instance.spawn_executor(PYTHON, "-I", "-c", code)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.wait(20) == int(number) + 40
    finally:
        process.kill()
        process.communicate()


def test_the_working_directory_and_environment_stay(
    instance: Instance, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The command finds the caller's directory and variables."""
    monkeypatch.setenv("MARK", "kept")
    done = execute(instance, "sh", "-c", "pwd; echo $MARK", cwd=tmp_path)
    assert done.stdout == f"{tmp_path}\nkept\n"


# --- who it runs as


def test_it_runs_as_the_one_who_called_sudo(instance: Instance, caller: None) -> None:
    """User, group and home are the caller's, not root's."""
    code = "import json, os; print(json.dumps([os.getresuid(), os.getresgid(), os.getgroups(), os.environ['USER']]))"
    assert inside(instance, code, user=()) == [[NOBODY] * 3, [NOBODY] * 3, [NOBODY], "nobody"]


def test_an_account_that_is_gone_is_refused(instance: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller's id without an account cannot be run as."""
    monkeypatch.setenv("SUDO_UID", "2999999")
    done = execute(instance, "true", user=())
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "2999999" in done.stderr


@pytest.mark.parametrize("user", ["nobody", "root"])
def test_it_has_no_capabilities_and_gains_none(instance: Instance, user: str) -> None:
    """All five capability sets are empty and no_new_privs is set, for root too (capabilities(7), prctl(2))."""
    done = execute(instance, "cat", "/proc/self/status", user=("--user", user))
    lines = dict(line.split(":\t", 1) for line in done.stdout.splitlines())
    sets = {name: int(lines[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}
    assert sets == dict.fromkeys(sets, 0)
    assert lines["NoNewPrivs"] == "1"


@pytest.mark.parametrize("sudo_uid", ["", "0"])
def test_root_must_be_asked_for(instance: Instance, monkeypatch: pytest.MonkeyPatch, sudo_uid: str) -> None:
    """Without another user behind sudo nothing is started: a command of root's would own the enforcer's own files."""
    monkeypatch.setenv("SUDO_UID", sudo_uid)
    done = instance.run("exec", "--", "true")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "--user root" in done.stderr


def test_another_user_can_be_named(instance: Instance) -> None:
    """--user beats sudo's caller; one that does not exist is refused in one line."""
    assert instance.run("exec", "--user", "nobody", "--", "id", "-u").stdout == f"{NOBODY}\n"
    done = instance.run("exec", "--user", "nosuchuser", "--", "true")
    assert (done.returncode, len(done.stderr.splitlines())) == (6, 1)
    assert "'nosuchuser' does not exist" in done.stderr


def test_inherited_descriptors_are_closed(instance: Instance) -> None:
    """A descriptor that the caller left open, a socket of the host's network, is not there in the executor."""
    with socket.socket() as leaked:
        leaked.set_inheritable(True)
        code = "import json, os; print(json.dumps(sorted(map(int, os.listdir('/proc/self/fd')))))"
        line = instance.command("exec", "--user", "nobody", "--", PYTHON, "-I", "-c", code)
        done = subprocess.run(
            instance.world.command("host", *line),
            capture_output=True,
            text=True,
            check=False,
            pass_fds=[leaked.fileno()],
            timeout=60,
        )
    assert json.loads(done.stdout) == [0, 1, 2, 3]  # 3 is the listing itself


# --- where it runs


def test_there_is_only_lo_and_no_route(instance: Instance) -> None:
    """The network namespace holds one interface, and no route that leaves it, for IPv4 and IPv6."""
    code = """
import json
devices = [line.split(":")[0].strip() for line in open("/proc/net/dev") if ":" in line]
routes4 = open("/proc/net/route").read().splitlines()[1:]
routes6 = sorted({line.split()[-1] for line in open("/proc/net/ipv6_route")})
print(json.dumps([devices, routes4, routes6]))
"""
    assert inside(instance, code) == [["lo"], [], ["lo"]]


def test_its_own_loopback_is_not_the_hosts(instance: Instance, world: World) -> None:
    """A server on the agent host's 127.0.0.1 cannot be reached; the executor's own can."""
    world.spawn("host", PYTHON, "-m", "http.server", "--bind", "127.0.0.1", "8099", log="loopback.log")
    code = """
import json, socket
with socket.create_server(("127.0.0.1", 0)) as own:
    socket.create_connection(own.getsockname()).close()
try:
    socket.create_connection(("127.0.0.1", 8099), 3)
    print(json.dumps("reached"))
except ConnectionRefusedError:
    print(json.dumps("refused"))
"""
    assert inside(instance, code) == "refused"


def test_it_is_in_its_cgroup_from_the_first_instruction(instance: Instance) -> None:
    """The command and its first process are below the instance's executors, and see their cgroup as the top."""
    name = load_settings(instance.root).instance
    assert "0::/\n" in execute(instance, "cat", "/proc/self/cgroup").stdout
    with Shell(instance) as shell:
        members = psutil.Process(shell.command_pid).children(recursive=True)
        assert len(members) == 2
        for process in members:
            assert f"0::/{name}/executors/agent-" in Path(f"/proc/{process.pid}/cgroup").read_text()


def test_its_namespaces_are_its_own(instance: Instance) -> None:
    """All but user and time, and both of its processes share them."""
    with Shell(instance) as shell:
        first, command = psutil.Process(shell.command_pid).children()
        ours = {path.name: path.readlink() for path in Path("/proc/self/ns").iterdir()}
        theirs = [{kind: Path(f"/proc/{one.pid}/ns/{kind}").readlink() for kind in ours} for one in (first, command)]
    assert theirs[0] == theirs[1]
    assert {kind for kind in ours if ours[kind] == theirs[0][kind]} == {"user", "time", "time_for_children"}


# --- what remains


def test_nothing_remains_of_an_executor(instance: Instance) -> None:
    """Cgroup, namespace, mount, state file, listener: all gone once the command has ended."""
    eventually(lambda: left_behind(instance) == NOTHING, "a clean start")
    descriptors = [psutil.Process(one["pid"]).num_fds() for one in instance.status()["workers"]]
    assert execute(instance, "curl", "-sS", url(FRANKFURT.address)).returncode == 0
    eventually(lambda: left_behind(instance) == NOTHING, "the executor's remains to go")
    eventually(
        lambda: [psutil.Process(one["pid"]).num_fds() for one in instance.status()["workers"]] == descriptors,
        "the workers to close its listeners",
    )


def test_background_processes_end_with_the_command(instance: Instance) -> None:
    """What the command left running does not outlive it."""
    assert execute(instance, "sh", "-c", "setsid sleep 31415 > /dev/null 2>&1 & echo $!").returncode == 0
    assert [one for one in psutil.process_iter(["cmdline"]) if "31415" in (one.info["cmdline"] or ())] == []
    eventually(lambda: left_behind(instance) == NOTHING, "the executor's remains to go")


def test_killing_exec_itself_ends_the_executor(instance: Instance, virginia: Watch) -> None:
    """kill -9 of `enforcer exec`: its processes die with it and nothing of the executor remains."""
    shell = Shell(instance)
    try:
        members = psutil.Process(shell.command_pid).children(recursive=True)
        namespaces = namespaces_of(members[0].pid)
        now = time.time()
        assert still_there(namespaces, now) == namespaces
        os.kill(shell.command_pid, signal.SIGKILL)
        eventually(lambda: not any(one.is_running() for one in members), "the executor's processes to end")
        eventually(lambda: not still_there(namespaces, now), "its namespaces to go")
        eventually(lambda: left_behind(instance) == NOTHING, "the executor's remains to go")
    finally:
        shell.close()
    assert virginia.arrived() == []


def test_killing_exec_without_a_supervisor_frees_nobody(instance: Instance, virginia: Watch) -> None:
    """Supervisor and `exec` both killed: the kernel ends the command and what it had in the background, in a session of
    its own; the next supervisor clears away the rest."""
    log, script = instance.world.directory / "orphan.log", instance.world.directory / "orphan.py"
    script.write_text(f"""
import socket, time
while True:
    try:
        socket.create_connection(("{VIRGINIA.address}", 80), 2).close()
        outcome = "connected"
    except OSError as error:
        outcome = type(error).__name__
    with open("{log}", "a") as stream:
        print(outcome, file=stream)
    time.sleep(0.05)
""")
    command = ("sh", "-c", f"setsid {PYTHON} -I {script} & wait")
    # No pipes: what outlives `exec` would hold them open.
    process = subprocess.Popen(
        instance.world.command("host", *instance.command("exec", "--user", "root", "--", *command)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        eventually(lambda: log.exists() and "connected" in log.read_text(), "the executor's first connection")
        members = psutil.Process(process.pid).children(recursive=True)
        group = next((cgroup.find_mount() / load_settings(instance.root).instance / "executors").glob("*-*/"))
        members += [psutil.Process(int(line)) for line in (group / "cgroup.procs").read_text().split()]
        instance.kill()
        eventually(lambda: log.read_text().splitlines()[-1] == "ConnectionRefusedError", "refusals")
    finally:
        process.kill()
        process.wait()
    eventually(lambda: not any(one.is_running() for one in members), "the end of all its processes")
    instance.start()
    eventually(lambda: left_behind(instance) == NOTHING, "the executor's remains to go")
    assert virginia.arrived() == []


def test_a_failed_start_leaves_nothing(instance: Instance) -> None:
    """A command that cannot be started is an executor that ends."""
    execute(instance, "no-such-command")
    eventually(lambda: left_behind(instance) == NOTHING, "the executor's remains to go")


# --- several at once


def test_equal_tuples_of_two_executors_are_not_mixed_up(instance: Instance, virginia: Watch) -> None:
    """Same source address and port, same listener port, different destinations and executors: each gets its own."""
    code = """
        import http.client
        connection = http.client.HTTPConnection(host, 80, timeout=10, source_address=("127.0.0.1", 45678))
        connection.connect()
    """
    ask = """
        connection.request("GET", "/")
        answer = connection.getresponse().status
        connection.close()
    """
    with Shell(instance, "first") as first, Shell(instance, "second") as second:
        first.run(code, host=FRANKFURT.address)
        second.run(code, host=VIRGINIA.address)
        ports = {one["name"]: one["port"] for one in instance.status()["executors"]}
        assert ports["first"] == ports["second"]
        assert (first.run(ask), second.run(ask)) == (200, 403)
    assert virginia.arrived() == []
    for name, region, action in (("first", "DE", "allow"), ("second", "US", "deny")):
        eventually(lambda name=name: session_list(instance, "--executor", name), "the session's record")
        (session,) = session_list(instance, "--executor", name)
        assert (session["region"], session["action"]) == (region, action)


def test_two_hundred_connections_at_once(instance: Instance) -> None:
    """200 open connections of one executor each get their own answer."""
    code = """
        import json, socket
        sockets, answer = [], []
        for number in range(200):
            sock = socket.create_connection((host, 8080), 30)
            sock.sendall(f"GET /number/{number} HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n".encode())
            sockets.append(sock)
        for sock in sockets:
            data = b""
            while not data.endswith(b"}"):
                more = sock.recv(65536)
                if not more:
                    break
                data += more
            answer.append(json.loads(data.partition(b"\\r\\n\\r\\n")[2])["target"])
            sock.close()
    """
    with Shell(instance) as shell:
        assert shell.run(code, host=FRANKFURT.address) == [f"/number/{number}" for number in range(200)]


def test_it_must_be_root(instance: Instance) -> None:
    """Another user is told to use sudo."""
    line = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "--inh-caps=+dac_read_search"]
    line += ["--ambient-caps=+dac_read_search", sys.executable, "-m", "enforcer", "--root", str(instance.root)]
    done = subprocess.run([*line, "exec", "--", "true"], capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 6
    assert done.stderr == ("enforcer: starting an executor must be done by root; use sudo, the command runs as you\n")
