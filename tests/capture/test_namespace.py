"""Entering a network namespace on a thread: here our own, which needs no other; root as everywhere."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from enforcer.capture import namespace
from enforcer.capture.namespace import cookie_of, keep, listen_inside, netns_cookie, release, run_inside
from enforcer.errors import HostError

pytestmark = pytest.mark.kernel


@pytest.fixture
def own() -> Iterator[int]:
    fd = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    yield fd
    os.close(fd)


def test_a_namespace_is_known_by_its_sockets_cookie(own: int) -> None:
    """The same number from either side."""
    with socket.socket() as sock:
        assert netns_cookie(own) == cookie_of(sock) > 0


def test_what_happens_inside_is_returned_or_raised(own: int) -> None:
    """Any error: none may be lost on the thread."""
    assert run_inside(own, lambda: 7) == 7
    for error in (OSError(5, "io"), HostError("no"), ValueError("surprise"), OverflowError("port")):

        def fail(error: Exception = error) -> None:
            raise error

        with pytest.raises(type(error)) as caught:
            run_inside(own, fail)
        assert caught.value is error


def test_what_is_no_namespace_is_one_clear_error(tmp_path: Path) -> None:
    """A descriptor of something else."""
    with (tmp_path / "file").open("w") as stream, pytest.raises(HostError, match=r"cannot enter .*; run as root"):
        run_inside(stream.fileno(), lambda: None)


def test_every_worker_gets_a_pair_on_one_port(own: int) -> None:
    """127.0.0.1 and ::1, shared by SO_REUSEPORT, not inherited by children, not blocking."""
    port, pairs = listen_inside(own, range(45001, 45065), 2)
    try:
        names = [sock.getsockname()[:2] for pair in pairs for sock in pair]
        assert names == [("127.0.0.1", port), ("::1", port)] * 2
        for sock in (sock for pair in pairs for sock in pair):
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT) == 1
            assert not sock.get_inheritable()
            assert not sock.getblocking()
            with socket.create_connection(sock.getsockname()[:2], timeout=5):
                pass
    finally:
        for pair in pairs:
            for sock in pair:
                sock.close()


@pytest.mark.parametrize(("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_a_port_that_somebody_has_is_passed_over(own: int, family: socket.AddressFamily, address: str) -> None:
    """Also where only one of the two families is taken; when all are, the error says so."""
    with socket.socket(family) as other:
        other.bind((address, 0))
        other.listen()
        taken = other.getsockname()[1]
        with pytest.raises(HostError, match="every port for the listener is taken"):
            listen_inside(own, [taken], 1)
        free = 45101 if taken != 45101 else 45102
        port, [pair] = listen_inside(own, [taken, free], 1)
        assert port == free
        for sock in pair:
            sock.close()


def test_a_kept_namespace_outlives_its_processes_and_is_released_without_a_trace(own: int, tmp_path: Path) -> None:
    """Bind-mounted on a file, found again by opening it; releasing twice is fine."""
    path = tmp_path / "netns"
    try:
        keep(own, path)
        fd = os.open(path, os.O_RDONLY)
        assert netns_cookie(fd) == netns_cookie(own)
        os.close(fd)
    finally:
        release(path)
    release(path)
    assert not path.exists()
    assert str(path) not in Path("/proc/mounts").read_text()


def test_what_cannot_be_kept_is_one_clear_error(tmp_path: Path) -> None:
    """A descriptor that is closed has nothing to mount."""
    with pytest.raises(HostError, match="cannot keep the namespace at"):
        keep(987654, tmp_path / "netns")
    assert namespace.PORT_ATTEMPTS > 0


def test_a_port_that_others_of_ours_listen_on_is_joined_only_on_purpose(own: int) -> None:
    """Another executor's listener, sharing or not, is not free; a worker that comes back joins its own."""
    first, pairs = listen_inside(own, range(45101, 45110), 1)
    second, more = listen_inside(own, range(first, 45110), 1)
    assert second == first + 1
    again, joined = listen_inside(own, [first], 1, join=True)
    assert again == first
    for pair in (*pairs, *more, *joined):
        for sock in pair:
            sock.close()
