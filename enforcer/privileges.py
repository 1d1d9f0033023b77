"""Giving up root, for good: used by workers before they read a byte and by executors before their command starts."""

from __future__ import annotations

import ctypes
import os
import pwd
import signal
from collections.abc import Iterable

from enforcer.errors import HostError

# include/uapi/linux/prctl.h
_PR_SET_PDEATHSIG, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 1, 24, 38, 47, 4
_LAST_CAPABILITY = 63
_CAPABILITY_VERSION_3 = 0x20080522  # include/uapi/linux/capability.h

_libc = ctypes.CDLL(None, use_errno=True)


class _CapabilityHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


def find_user(name: str) -> pwd.struct_passwd:
    """Raises HostError when there is no such user."""
    try:
        return pwd.getpwnam(name)
    except KeyError:
        raise HostError(f"user {name!r} does not exist; useradd --system --no-create-home {name}") from None


def drop_privileges(user: str) -> None:
    """Becomes `user` with its groups, as `become` does. Raises HostError, OSError."""
    account = find_user(user)
    become(account.pw_uid, account.pw_gid, os.getgrouplist(account.pw_name, account.pw_gid))


def become(uid: int, gid: int, groups: Iterable[int]) -> None:
    """Has these ids and no capability, now or after any exec. Raises HostError, OSError."""
    # The bounding set first: dropping from it is itself privileged.
    for capability in range(_LAST_CAPABILITY + 1):
        _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)  # EINVAL beyond the kernel's last one
    os.setgroups(list(groups))
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    _libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    _clear_capabilities()
    if _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise HostError("the kernel refused no_new_privs; Linux 3.5 or later is needed")


def _clear_capabilities() -> None:
    """Empties effective, permitted and inherited sets; matters when the user is root itself."""
    header = _CapabilityHeader(_CAPABILITY_VERSION_3, 0)
    empty = (ctypes.c_uint32 * 6)()
    if _libc.capset(ctypes.byref(header), empty) != 0:
        raise HostError(f"the kernel refused to drop capabilities: {os.strerror(ctypes.get_errno())}; run as root")


def die_with_parent() -> None:
    """SIGKILL for this process when its parent dies. Call after changing user, which resets it."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
