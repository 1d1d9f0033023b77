"""Checks of the kernel side: what capturing needs, and the product's own programs at work in a throw-away place."""

from __future__ import annotations

import os
import platform
import re
import secrets
import socket
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path

from enforcer.capture import cgroup, programs
from enforcer.capture.btf import BTF
from enforcer.capture.headers import find_kernel_source
from enforcer.capture.namespace import netns_cookie, run_inside
from enforcer.capture.programs import BPF_MOUNT, Pins
from enforcer.doctor import attempts, lsm
from enforcer.doctor.attempts import Attempt
from enforcer.doctor.checks import Outcome, Place, missing, ok
from enforcer.doctor.children import libc, private_mounts, system, within
from enforcer.doctor.stage import PREFIX, new_namespace
from enforcer.errors import KernelError

# bpf/README.md: the youngest feature used.
MINIMUM_KERNEL = (5, 15)
# include/uapi/linux/capability.h: what the supervisor, its loader and `enforcer exec` use.
CAPABILITIES = {
    0: "CAP_CHOWN", 1: "CAP_DAC_OVERRIDE", 5: "CAP_KILL", 6: "CAP_SETGID", 7: "CAP_SETUID", 8: "CAP_SETPCAP",
    12: "CAP_NET_ADMIN", 19: "CAP_SYS_PTRACE", 21: "CAP_SYS_ADMIN", 38: "CAP_PERFMON", 39: "CAP_BPF",
}  # fmt: skip
_BTF_MAGIC = 0xEB9F
_LSM_LIST = Path("/sys/kernel/security/lsm")
# include/uapi/linux/{netlink,sock_diag,inet_diag}.h
_NETLINK_SOCK_DIAG, _SOCK_DESTROY, _NLM_F_REQUEST, _NLM_F_ACK, _NLMSG_ERROR = 4, 21, 1, 4, 2
_DIAG_SECONDS = 2.0


def capabilities(_place: Place) -> Outcome:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapEff:"))
    held = int(line.split()[1], 16)
    lacking = [name for number, name in CAPABILITIES.items() if not held >> number & 1]
    if lacking:
        return missing(f"root without {', '.join(lacking)}", "run on the host itself, not in a restricted container")
    return ok("root with every capability that is used")


def kernel_version(_place: Place) -> Outcome:
    release = platform.release()
    found = re.match(r"(\d+)\.(\d+)", release)
    minimum = ".".join(map(str, MINIMUM_KERNEL))
    if found is None or (int(found[1]), int(found[2])) < MINIMUM_KERNEL:
        return missing(f"Linux {release} is older than {minimum}", f"boot Linux {minimum} or later; Debian 12 has 6.1")
    return ok(f"Linux {release} on {platform.machine()}")


def btf(_place: Place) -> Outcome:
    try:
        with BTF.open("rb") as stream:
            (magic,) = struct.unpack("=H", stream.read(2))
    except OSError as error:
        return missing(f"{BTF}: {error.strerror}", "boot a kernel with CONFIG_DEBUG_INFO_BTF, as Debian's have")
    if magic != _BTF_MAGIC:
        return missing(f"{BTF} is not BTF", "boot a kernel with CONFIG_DEBUG_INFO_BTF, as Debian's have")
    return ok("the kernel describes its own types")


def headers(_place: Place) -> Outcome:
    with tempfile.TemporaryDirectory(prefix="enforcer-doctor-") as scratch:
        tree = find_kernel_source(Path(scratch))
        if tree is None:
            return ok(f"the running kernel's, /lib/modules/{platform.release()}/build")
        common = next(path for path in (tree / "include").iterdir() if path.name == "uapi").resolve().parent.parent
    return ok(f"{common} (not the running kernel's; any version serves)")


def cgroup_v2(place: Place) -> Outcome:
    """A child of the mount is made: the throw-away instance, which later checks use."""
    return ok(f"mounted at {cgroup.find_mount()}; {place.make_stage().name} was made in it")


def bpf_file_system(_place: Place) -> Outcome:
    """A directory of pins is made in it, and removed."""
    pins = Pins(f"{PREFIX}{secrets.token_hex(4)}")
    try:
        pins.prepare()
    except OSError as error:
        return missing(f"{BPF_MOUNT} cannot be written: {error.strerror}", f"mount -t bpf bpf {BPF_MOUNT}")
    finally:
        pins.remove()
    return ok(f"mounted at {BPF_MOUNT}")


def load(place: Place) -> Outcome:
    try:
        directory = place.stage.load()
    except KernelError as error:
        reason = str(error).partition("; ")[0]
        return missing(reason, "see what else is not ok here; bpf/README.md has the minimum kernel")
    taken = sum((directory / f"prog_{hook.program}").exists() for hook in programs.HOOKS)
    return ok(f"{taken} programs compiled, accepted by the verifier and pinned")


def attach(place: Place) -> Outcome:
    counts = place.stage.attach()
    wrong = [f"{name} {count}" for name, count in counts.items() if count != 1]
    if wrong:
        return missing(f"not exactly one program: {', '.join(wrong)}", "boot a kernel with CONFIG_CGROUP_BPF")
    return ok(", ".join(counts))


def _stopped(group: tuple[Attempt, ...], words: str) -> Callable[[Place], Outcome]:
    def check(place: Place) -> Outcome:
        _ = place.stage.tables  # attached, or it cannot be told
        if got_out := attempts.escaped(place.stage, group):
            return missing(
                f"left a governed process and arrived: {', '.join(got_out)}",
                "use isolated mode: its network namespace has no way out",
            )
        return ok(words)

    return check


connects = _stopped(attempts.CONNECTS, "TCP over IPv4, IPv6 and IPv4-mapped refused; no packet left")
datagrams = _stopped(attempts.DATAGRAMS, "UDP in every form refused; no packet left")
pings = _stopped(attempts.PINGS, "ICMP echo sockets refused; no packet left")
raws = _stopped(attempts.RAWS, "raw IP sockets refused; no packet left")


def uplinks(place: Place) -> Outcome:
    """The tc filter on an interface that leads out, which sees what sockets of the IP family never do."""
    place.stage.guard()
    if attempts.escaped(place.stage, attempts.FRAMES):
        return missing("a frame written past the sockets arrived, with the filter in place", "use isolated mode")
    return ok("a frame written past the sockets was dropped by the filter on the interface")


def redirect(place: Place) -> Outcome:
    if faults := attempts.redirected(place.stage):
        return missing(faults[0], "report it with uname -r")
    return ok("connections come to the listener, know where they were meant to go, and no packet leaves")


def bpf_lsm(place: Place) -> Outcome:
    """The list of security modules, and the product's own programs: attached, and asked by the kernel."""
    listed = within(_lsm_list)
    boot = f"boot with lsm={listed},bpf" if "bpf" not in listed.split(",") else ""
    tables = place.stage.tables
    found = programs.security(place.stage.pins)
    lacking = [name for name, count in found.items() if not count]
    if len(lacking) == len(found):
        detail = f"the kernel refuses LSM programs ({_refusal()}); security modules: {listed or 'unknown'}"
        return missing(detail, boot or "boot Debian's kernel: this one forbids them; or run executors isolated")
    if not tables.is_security_asked():
        return missing(
            f"programs attach but are never asked; security modules: {listed}", boot or "boot with bpf in lsm="
        )
    if lacking:
        return missing(f"the kernel refuses some: {', '.join(lacking)}", "run executors isolated")
    return ok(f"{len(found)} programs attached, and the kernel asks them; security modules: {listed}")


def _refusal() -> str:
    """Why, told by a program that permits everything."""
    try:
        lsm.attach_and_detach()
    except OSError as error:
        return error.strerror or str(error)
    return "these, and takes others"


def _lsm_list() -> str:
    if not _LSM_LIST.exists():
        private_mounts()
        system(libc.mount(b"none", b"/sys/kernel/security", b"securityfs", 0, None))
    return _LSM_LIST.read_text().strip()


def namespace_cookie(_place: Place) -> Outcome:
    first, second = new_namespace(), new_namespace()
    try:
        cookies = {netns_cookie(first), netns_cookie(second)}
    finally:
        os.close(first)
        os.close(second)
    if len(cookies) != 2 or 0 in cookies:
        return missing("two network namespaces have the same cookie", "boot Linux 5.14 or later")
    return ok("each network namespace has its own")


def socket_destroy(_place: Place) -> Outcome:
    """A connection over the loopback of a new namespace is closed from outside."""
    namespace = new_namespace()
    try:
        run_inside(namespace, _destroy_one)
    except OSError as error:
        return missing(
            f"SOCK_DESTROY: {error.strerror or error}", "boot a kernel with CONFIG_INET_DIAG_DESTROY, as Debian's have"
        )
    finally:
        os.close(namespace)
    return ok("an established connection was closed through sock_diag")


def _destroy_one() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as client,
        socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as netlink,
    ):
        client.settimeout(_DIAG_SECONDS)
        netlink.settimeout(_DIAG_SECONDS)
        netlink.send(_destroy_request(client))
        kind, error = struct.unpack_from("=4xH10xi", netlink.recv(4096))
        if kind != _NLMSG_ERROR or error:
            raise OSError(-error, os.strerror(-error))
        try:
            client.recv(1)
        except ConnectionAbortedError:
            return
        raise OSError("the kernel said yes and the connection lives")


def _destroy_request(client: socket.socket) -> bytes:
    """struct nlmsghdr, struct inet_diag_req_v2 with struct inet_diag_sockid."""
    (source, source_port), (target, target_port) = client.getsockname(), client.getpeername()
    ident = struct.pack("!HH", source_port, target_port) + socket.inet_aton(source).ljust(16, b"\0")
    ident += socket.inet_aton(target).ljust(16, b"\0") + struct.pack("=III", 0, 0xFFFFFFFF, 0xFFFFFFFF)
    request = struct.pack("=BBBxI", socket.AF_INET, socket.IPPROTO_TCP, 0, 0xFFFFFFFF) + ident
    return struct.pack("=IHHII", 16 + len(request), _SOCK_DESTROY, _NLM_F_REQUEST | _NLM_F_ACK, 1, 0) + request
