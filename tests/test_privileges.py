"""Giving up root, looked at from outside: what /proc says of a process that dropped its privileges."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys

import pytest

from enforcer.errors import HostError
from enforcer.privileges import find_user

pytestmark = pytest.mark.kernel

USERS = ["enforcer", "root", "nobody"]

_CHILD = """
import ctypes, os, sys
from enforcer.privileges import drop_privileges
drop_privileges(sys.argv[1])
"""
_STATUS = "print(open('/proc/self/status').read())"


def child(code: str, user: str) -> subprocess.CompletedProcess[str]:
    """Runs `code` in a process that dropped to `user`; it inherits a full set of capabilities and extra groups."""
    return subprocess.run(
        [sys.executable, "-c", _CHILD + code, user],
        capture_output=True,
        text=True,
        check=False,
        extra_groups=[0, 4, 27],
    )


def status(user: str, code: str = _STATUS) -> dict[str, list[str]]:
    done = child(code, user)
    assert done.returncode == 0, done.stderr
    lines = (line.split(":", 1) for line in done.stdout.splitlines() if ":" in line)
    return {name: rest.split() for name, rest in lines}


@pytest.mark.parametrize("user", USERS)
def test_no_capability_is_left_in_any_set(user: str) -> None:
    """Effective, permitted, inheritable, bounding and ambient are empty, for root as well."""
    found = status(user)
    assert {name: int(found[name][0], 16) for name in ("CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb")} == {
        "CapEff": 0,
        "CapPrm": 0,
        "CapInh": 0,
        "CapBnd": 0,
        "CapAmb": 0,
    }
    assert found["NoNewPrivs"] == ["1"]


@pytest.mark.parametrize("user", USERS)
def test_user_and_groups_are_the_accounts_own(user: str) -> None:
    """Real, effective, saved and file system ids; and not one group of the caller's."""
    account = pwd.getpwnam(user)
    found = status(user)
    assert found["Uid"] == [str(account.pw_uid)] * 4
    assert found["Gid"] == [str(account.pw_gid)] * 4
    assert {int(group) for group in found["Groups"]} == set(os.getgrouplist(user, account.pw_gid))


@pytest.mark.parametrize("user", USERS)
def test_nothing_comes_back_over_an_exec(user: str) -> None:
    """Neither root's own exec nor a setuid program gives one: the bounding set is empty, no_new_privs is set."""
    command = "['grep', '-E', '^Cap|^NoNewPrivs|^Uid', '/proc/self/status']"
    found = status(user, f"os.execvp('grep', {command})")
    assert [found[name] for name in ("CapEff", "CapPrm", "CapBnd", "NoNewPrivs")] == [["0" * 16]] * 3 + [["1"]]
    assert found["Uid"] == [str(pwd.getpwnam(user).pw_uid)] * 4


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize(
    "attempt",
    [
        "os.setuid(12345)",
        "os.setgroups([0])",
        "os.chroot('/')",
        "import socket; socket.socket(socket.AF_PACKET, socket.SOCK_RAW)",
        "import socket; socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)",
        "os.kill(1, 19) if os.getuid() else os.chown('/proc/self/status', 1, 1)",
        "assert ctypes.CDLL(None).unshare(0x40000000) == 0, PermissionError",
    ],
)
def test_what_needs_a_capability_is_refused(user: str, attempt: str) -> None:
    """Becoming somebody else, raw packets, a new network namespace: for root without capabilities too."""
    done = child(attempt, user)
    assert done.returncode != 0
    assert "Error" in done.stderr


def test_a_user_that_does_not_exist_is_one_line_with_the_mend() -> None:
    """The command that makes the account."""
    with pytest.raises(HostError, match="user 'no-such-user' does not exist; useradd") as caught:
        find_user("no-such-user")
    assert "\n" not in str(caught.value)


def test_whoever_is_not_root_cannot_half_drop() -> None:
    """It fails, instead of going on with what it had."""
    done = child("drop_privileges('enforcer')", "nobody")
    assert done.returncode != 0
    assert "Operation not permitted" in done.stderr


def test_a_child_dies_with_its_parent() -> None:
    """A worker must not outlive the supervisor that records for it, however that one dies."""
    code = """
import os, signal, subprocess, sys, time
worker = subprocess.Popen([sys.executable, "-c",
    "from enforcer.privileges import *; drop_privileges('enforcer'); die_with_parent(); print('up', flush=True);"
    "import time; time.sleep(60)"], stdout=subprocess.PIPE)
worker.stdout.readline()
print(worker.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    parent = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    pid = int(parent.stdout)
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    import select

    assert select.select([fd], [], [], 10)[0], "the child lives on"
    os.close(fd)
