"""Ways to send that the attached programs must stop, tried from inside the throw-away cgroup and judged by what the far
side received. Each is tried outside first: what does not arrive from there proves nothing."""

from __future__ import annotations

import os
import secrets
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from enforcer.capture.abi import CoarseVerdict, address_of, port_of
from enforcer.capture.generation import DirectPlan, build_generation, build_tries
from enforcer.capture.namespace import cookie_of
from enforcer.capture.original_dst import flow_record
from enforcer.doctor.checks import CannotTell
from enforcer.doctor.children import within
from enforcer.doctor.stage import FAR4, FAR6, Stage

# Seconds to wait for what comes at once or not at all; an emulated machine takes its time.
_CONNECT_SECONDS = 3.0
_EXPERIMENTAL = 253  # RFC 3692: an IP protocol for experiments
_CAPTURE_PORT, _MARKER_PORT = 7900, 7999
_ETH_P_IP = 0x0800


@dataclass(frozen=True, slots=True)
class Attempt:
    """`send(number)` tries to get `number` to the far side: as a destination port, and as text where it can."""

    name: str
    send: Callable[[int], None]


def _connect(family: socket.AddressFamily, address: str) -> Callable[[int], None]:
    def send(number: int) -> None:
        with socket.socket(family, socket.SOCK_STREAM) as sock:
            sock.settimeout(_CONNECT_SECONDS)
            sock.connect((address, number))

    return send


def _datagram(family: socket.AddressFamily, address: str, *, connected: bool) -> Callable[[int], None]:
    def send(number: int) -> None:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            if connected:
                sock.connect((address, number))
                sock.send(_text(number))
            else:
                sock.sendto(_text(number), (address, number))

    return send


def _raw(number: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, _EXPERIMENTAL) as sock:
        sock.sendto(_text(number), (FAR4, 0))


def _ping(number: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP) as sock:
        sock.sendto(struct.pack("!BBHHH", 8, 0, 0, 0, 1) + _text(number), (FAR4, 0))


def _frame(number: int) -> None:
    """A whole Ethernet frame with an IPv4 packet of its own making, past every hook on sockets of the IP family."""
    text = _text(number)
    packet = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(text), 0, 0, 64, _EXPERIMENTAL, 0, bytes(4), bytes(4))
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_IP)) as sock:
        sock.sendto(packet + text, ("near", _ETH_P_IP, 0, 0, b"\xff" * 6))


CONNECTS = (
    Attempt("TCP over IPv4", _connect(socket.AF_INET, FAR4)),
    Attempt("TCP over IPv6", _connect(socket.AF_INET6, FAR6)),
    Attempt("TCP to an IPv4-mapped address", _connect(socket.AF_INET6, f"::ffff:{FAR4}")),
)
DATAGRAMS = (
    Attempt("UDP over IPv4", _datagram(socket.AF_INET, FAR4, connected=False)),
    Attempt("UDP over IPv6", _datagram(socket.AF_INET6, FAR6, connected=False)),
    Attempt("UDP to an IPv4-mapped address", _datagram(socket.AF_INET6, f"::ffff:{FAR4}", connected=False)),
    Attempt("connected UDP", _datagram(socket.AF_INET, FAR4, connected=True)),
)
PINGS = (Attempt("an ICMP echo socket", _ping),)
RAWS = (Attempt("a raw IP socket", _raw),)
FRAMES = (Attempt("a frame written to the interface", _frame),)


def escaped(stage: Stage, attempts: tuple[Attempt, ...]) -> list[str]:
    """Names of the attempts whose traffic arrived although they were made inside the throw-away cgroup. Raises
    CannotTell when one does not even arrive from outside it."""
    first = 7000 + secrets.randbelow(500)
    controls = {attempt.name: first + index for index, attempt in enumerate(attempts)}
    trials = {name: number + 500 for name, number in controls.items()}
    frames = _frames(stage, stage.outside, attempts, controls)
    silent = [name for name, number in controls.items() if not _arrived(frames, number)]
    if silent:
        raise CannotTell(f"{silent[0]} does not arrive from an ungoverned process either")
    frames = _frames(stage, stage.executor, attempts, trials)
    return [name for name, number in trials.items() if _arrived(frames, number)]


def _frames(stage: Stage, group: Path, attempts: tuple[Attempt, ...], numbers: dict[str, int]) -> list[bytes]:
    """What reaches the far side when the attempts are made by root in `group`."""
    far = stage.far

    def try_all() -> None:
        # Where the kernel lets everybody have ICMP sockets, the programs must stop them. (Of this namespace alone.)
        with suppress(OSError):
            Path("/proc/sys/net/ipv4/ping_group_range").write_text("0 2147483647")
        for attempt in attempts:
            with suppress(OSError):  # refused, as it should be; or not: the far side tells
                attempt.send(numbers[attempt.name])

    within(try_all, group=group, netns=stage.near)
    return far.frames_until(mark(stage))


def mark(stage: Stage) -> bytes:
    """A datagram from an ungoverned process, which arrives after all that was sent before it; its text."""
    marker = b"marker " + secrets.token_hex(8).encode()

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(marker, (FAR4, _MARKER_PORT))

    within(send, group=stage.outside, netns=stage.near)
    return marker


def _text(number: int) -> bytes:
    return b"attempt %d;" % number


def _arrived(frames: list[bytes], number: int) -> bool:
    """Is the number in a frame, as text or as a TCP or UDP port (which sits at a fixed place: no options are sent)?"""
    port = struct.pack("!H", number)
    return any(_text(number) in frame or frame[36:38] == port or frame[56:58] == port for frame in frames)


# --- what is not refused


class _Everywhere:
    """A table that knows no prefix: every destination is of the region set 0, unknown."""

    counts = {"v4": 0, "v6": 0}  # noqa: RUF012 - read only

    def kernel_entries(self, _version: int) -> Any:
        return iter(())


def redirected(stage: Stage) -> list[str]:
    """Connects to the far side by every form of address with a listener in place, and returns what was wrong: each
    connection must come to the listener, be known there by its original destination, and leave no frame."""
    tables, near = stage.tables, stage.near
    far = stage.far
    tables.swap(build_generation(build_tries(_Everywhere()), {0: CoarseVerdict.REDIRECT}, DirectPlan()))

    def listen_and_connect() -> list[str]:
        listener4, listener6 = _listeners()
        tables.set_listener(cookie_of(listener4), stage.executor_id, listener4.getsockname()[1])
        # The listeners stay in the supervisor's cgroup; what is made from here on is an executor's.
        (stage.executor / "cgroup.procs").write_text(str(os.getpid()))
        faults = []
        for family, address, listener in (
            (socket.AF_INET, FAR4, listener4),
            (socket.AF_INET6, FAR6, listener6),
            (socket.AF_INET6, f"::ffff:{FAR4}", listener4),
        ):
            faults += _capture(family, address, listener)
        return faults

    faults: list[str] = within(listen_and_connect, group=stage.groups.own, netns=near)
    frames = far.frames_until(mark(stage))
    faults += ["a packet left for the original destination"] if _arrived(frames, _CAPTURE_PORT) else []
    return faults


def _listeners() -> tuple[socket.socket, socket.socket]:
    listener4 = socket.create_server(("127.0.0.1", 0))
    listener6 = socket.create_server(("::1", listener4.getsockname()[1]), family=socket.AF_INET6)
    for listener in (listener4, listener6):
        listener.settimeout(_CONNECT_SECONDS)
    return listener4, listener6


def _capture(family: socket.AddressFamily, address: str, listener: socket.socket) -> list[str]:
    with socket.socket(family) as sock:
        sock.settimeout(_CONNECT_SECONDS)
        try:
            sock.connect((address, _CAPTURE_PORT))
            accepted, _ = listener.accept()
        except OSError as error:
            return [f"connect to {address}: {error.strerror or error}"]
        with accepted:
            record = flow_record(accepted)
        if record is None:
            return [f"connect to {address}: the original destination is not known"]
        meant = f"{address_of(record.address, record.family)} {port_of(record.port)}"
        wanted = f"{address.removeprefix('::ffff:')} {_CAPTURE_PORT}"
        seen = f"{sock.getpeername()[0]} {sock.getpeername()[1]}"
        faults = [] if meant == wanted else [f"connect to {address}: taken for {meant}"]
        return faults if seen == f"{address} {_CAPTURE_PORT}" else [*faults, f"getpeername shows {seen}, not {address}"]
