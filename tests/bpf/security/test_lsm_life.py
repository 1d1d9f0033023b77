"""Security hooks come and go as a whole: what this kernel takes is in force and said, no restart opens a gap, and what
people run in executors goes on working."""

from __future__ import annotations

import errno
import os
import socket
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from enforcer.capture import programs, sysbpf
from enforcer.capture.sysbpf import AttachType
from enforcer.doctor import lsm
from enforcer.errors import KernelError
from tests.fixtures.kernel import PATIENCE, Executor, Kernel, use_other_version

pytestmark = pytest.mark.kernel

# A socket of a family that the hooks refuse; without them it is made.
PACKET = "answer['errno'] = attempt(lambda: socket.socket(17, 3).close())"


def test_the_programs_say_what_this_kernel_takes(kernel: Kernel, in_force: bool) -> None:
    """All are in force and were asked; or the kernel refuses any such program with EPERM, none is there, and the set is
    whole."""
    found = programs.security(kernel.pins)
    assert len(found) == 22 + ("file_permission" in found)
    if in_force:
        assert set(found.values()) == {1}
        lsm.attach_and_detach()
    else:
        assert set(found.values()) == {0}
        with pytest.raises(PermissionError):
            lsm.attach_and_detach()
    pinned = {path.name.removeprefix("prog_") for path in kernel.directory.iterdir() if path.name.startswith("prog_")}
    assert {hook.program for hook in programs.HOOKS if hook.where is not programs.Where.LSM} <= pinned
    assert set(programs.attached(kernel.pins, kernel.groups).values()) == {1}


def test_programs_work_in_executors(executor: Executor, tmp_path: Path) -> None:
    """git, curl over the listener and over a Unix socket, Python's process pools and name look-ups, as outside."""
    executor.run("import subprocess, multiprocessing, http.server, socketserver")
    environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "GIT_CONFIG_NOSYSTEM": "1"}
    script = (
        "set -e; git init -q a; cd a; git -c user.name=a -c user.email=a@b commit -q --allow-empty -m one; cd ..;"
        " git clone -q file://$PWD/a b; git -C b log --format=%s"
    )
    answer = executor.run(
        f"done = subprocess.run(['sh', '-c', {script!r}], cwd={str(tmp_path)!r}, env={environment!r},"
        " capture_output=True)\nanswer['git'] = done.stdout.decode() + done.stderr.decode()"
    )
    assert answer == {"git": "one\n"}
    answer = executor.run(
        f"""
        class Server(socketserver.UnixStreamServer):
            def get_request(self):
                return super().get_request()[0], ("local", 0)
        server = Server({str(tmp_path / "http")!r}, http.server.SimpleHTTPRequestHandler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        command = ["curl", "-s", "-o", "/dev/null", "-w", "%{{http_code}}", "http://a/", "--unix-socket"]
        command.append({str(tmp_path / "http")!r})
        answer["curl"] = subprocess.run(command, capture_output=True, text=True).stdout
        answer["lookup"] = socket.getaddrinfo("localhost", 80)[0][4][0] in ("127.0.0.1", "::1")
        context = multiprocessing.get_context("fork")
        near, far = context.Pipe()
        child = context.Process(target=lambda: far.send(multiprocessing.reduction.DupFd(1) and "sent"))
        child.start()
        answer["pipe"] = near.recv()
        """
    )
    assert answer == {"curl": "200", "lookup": True, "pipe": "sent"}
    executor.start(
        "answer['curl'] = subprocess.run(['curl', '-s', 'http://3.120.0.10/'], capture_output=True, text=True).stdout"
    )
    accepted, record = executor.accept()
    with accepted:
        assert record is not None
        accepted.recv(4096)
        accepted.send(b"HTTP/1.0 200 OK\r\n\r\nhello")
        accepted.shutdown(socket.SHUT_RDWR)
    assert executor.result() == {"curl": "hello"}


def test_a_new_version_takes_over_without_a_gap(
    kernel: Kernel, executor: Executor, in_force: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While another version is loaded and switched to, not one socket of another family is made."""
    executor.run(
        """
        made, going = [], True
        def press():
            while going:
                made.append(attempt(lambda: socket.socket(17, 3).close()))
                time.sleep(0.005)
        thread = threading.Thread(target=press)
        thread.start()
        """
    )
    with monkeypatch.context() as patch:
        use_other_version(patch)
        older = kernel.tables
        kernel.install()
        older.close()
    code = (
        "while len(made) < 100:\n    time.sleep(0.01)\ngoing = False\nthread.join()\nanswer['made'] = list(set(made))"
    )
    assert executor.run(code)["made"] == [errno.EPERM if in_force else 0]
    assert set(programs.security(kernel.pins).values()) == {int(in_force)}
    older = kernel.tables
    kernel.install()  # the tree's own version again
    older.close()
    assert kernel.tables.is_security_asked() == in_force


def test_a_set_whose_hooks_are_gone_is_not_gone_on_with(kernel: Kernel, executor: Executor, in_force: bool) -> None:
    """A restart that finds a security hook's link missing loads anew, and the hook is in force again."""
    directory = kernel.directory
    if in_force:
        (directory / "link_lsm__socket_create").unlink()
        deadline = time.monotonic() + PATIENCE
        while executor.run(PACKET) != {"errno": 0}:
            assert time.monotonic() < deadline, "the hook is in force without its link"
    older = kernel.tables
    kernel.install()
    older.close()
    assert (kernel.directory == directory) == (not in_force)
    assert executor.run(PACKET) == {"errno": errno.EPERM if in_force else 0}


def test_a_hook_is_not_lost_by_a_restart(
    kernel: Kernel, executor: Executor, in_force: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the new version's hook cannot be attached, the start fails and the old one stays; a kernel that has none
    goes without."""
    create = sysbpf.link_create

    def refuse(program: int, target: int, attach_type: AttachType) -> int:
        if attach_type is AttachType.LSM_MAC:
            raise OSError(errno.ENOMEM, "no memory")
        return create(program, target, attach_type)

    older, directory = kernel.tables, kernel.directory
    with monkeypatch.context() as patch:
        use_other_version(patch)
        patch.setattr(sysbpf, "link_create", refuse)
        outcome: Any = pytest.raises(KernelError, match="socket_create") if in_force else nullcontext()
        with outcome:
            kernel.install()
    assert executor.run(PACKET) == {"errno": errno.EPERM if in_force else 0}
    assert not in_force or (directory / "link_lsm__socket_create").exists()
    older.close()
    failed = kernel.tables
    kernel.install()
    failed.close()
    assert kernel.pins.sets() == [kernel.directory]
    assert set(programs.security(kernel.pins).values()) == {int(in_force)}
