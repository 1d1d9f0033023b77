"""The control socket: one answer per request, errors with their exit codes, descriptors closed, leavers noticed."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from enforcer.errors import ConfigError, EnforcerError, HostError, NotRunning, PolicyError, UsageError
from enforcer.supervisor import control
from enforcer.supervisor.client import ControlClient
from enforcer.supervisor.control import ControlServer

PATIENCE = 10.0


class Serving:
    """A control server on a thread of its own, as the supervisor is a process of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.answer: Callable[[dict[str, Any], list[int]], dict[str, Any]] = lambda request, _: {"echo": request}
        self.tokens: list[object] = []
        self.closed: list[object] = []
        self.descriptors: list[int] = []
        self.governed = False
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        self._thread.start()
        assert self._ready.wait(PATIENCE)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        server = ControlServer(self.path, self._handle, self.closed.append, lambda _path: self.governed)
        self._ready.set()
        await self._stop.wait()
        server.close()

    def _handle(self, request: dict[str, Any], descriptors: list[int], token: object) -> dict[str, Any]:
        self.tokens.append(token)
        self.descriptors += descriptors
        return self.answer(request, descriptors)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()

    def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, "it never came to that"
            time.sleep(0.005)


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Serving]:
    server = Serving(tmp_path / "control.sock")
    yield server
    server.stop()


def test_a_request_is_answered_on_its_own_connection(serving: Serving) -> None:
    """Several requests on one connection have one token; another connection has another."""
    with ControlClient(serving.path) as first, ControlClient(serving.path) as second:
        assert first.request({"op": "a"}) == {"echo": {"op": "a"}}
        assert second.request({"op": "b"}) == {"echo": {"op": "b"}}
        assert first.request({"op": "c"}) == {"echo": {"op": "c"}}
    one, other, again = serving.tokens
    assert one is again
    assert one is not other


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("no such thing; use another"), 2),
        (ConfigError("policies: unknown setting"), 3),
        (PolicyError(["a.yaml:1: one", "b.yaml:2: two"]), 4),
        (HostError("this host lacks something"), 6),
        (OSError(28, "No space left on device"), 1),
    ],
)
def test_an_error_arrives_with_its_words_and_exit_code(serving: Serving, error: Exception, code: int) -> None:
    """The command that asked ends with the code that the supervisor's error carries."""

    def refuse(_request: dict[str, Any], _descriptors: list[int]) -> dict[str, Any]:
        raise error

    serving.answer = refuse
    with ControlClient(serving.path) as client:
        with pytest.raises(EnforcerError) as caught:
            client.request({"op": "x"})
        assert (str(caught.value), caught.value.exit_code) == (str(error), code)
        serving.answer = lambda _request, _descriptors: {"still": "there"}
        assert client.request({"op": "y"}) == {"still": "there"}


@pytest.mark.parametrize("message", [b"{not json", b"\xff\xfe", b"{}", b"[]", b"1", b'"op"', b"null"])
def test_a_message_that_is_no_request_gets_an_error_and_the_server_lives(serving: Serving, message: bytes) -> None:
    """A command of another version, or a person with socat."""
    serving.answer = lambda request, _descriptors: {"op": request["op"]}
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as raw:
        raw.settimeout(PATIENCE)
        raw.connect(str(serving.path))
        raw.send(message)
        assert b'"error"' in raw.recv(control.MAX_MESSAGE)
    with ControlClient(serving.path) as client:
        assert client.request({"op": "status"}) == {"op": "status"}


@pytest.mark.parametrize("failing", [False, True])
def test_descriptors_that_came_with_a_request_are_closed_after_it(serving: Serving, failing: bool) -> None:
    """The supervisor must not run out of them, however its handler ends."""

    def look(_request: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        identity = os.fstat(descriptors[0])
        if failing:
            raise HostError("no")
        return {"inode": identity.st_ino}

    serving.answer = look
    with ControlClient(serving.path) as client, serving.path.parent.joinpath("file").open("w") as stream:
        inode = os.fstat(stream.fileno()).st_ino
        if failing:
            with pytest.raises(EnforcerError):
                client.request({"op": "x"}, [stream.fileno()])
        else:
            assert client.request({"op": "x"}, [stream.fileno()]) == {"inode": inode}
        (received,) = serving.descriptors
        place = Path(f"/proc/self/fd/{received}")
        assert not place.exists() or place.readlink() != serving.path.parent / "file"


def test_a_client_that_leaves_is_reported_once_with_its_token(serving: Serving) -> None:
    """That is how the supervisor learns that `enforcer exec` has ended, also when it was killed."""
    with ControlClient(serving.path) as client:
        client.request({"op": "a"})
        assert serving.closed == []
    serving.until(lambda: serving.closed)
    assert serving.closed == serving.tokens
    time.sleep(0.05)
    assert len(serving.closed) == 1


def test_the_socket_is_for_root_alone(serving: Serving) -> None:
    """Mode 0600 from the first moment."""
    assert stat.S_IMODE(serving.path.stat().st_mode) == 0o600


def test_a_socket_left_by_a_killed_supervisor_is_replaced(tmp_path: Path) -> None:
    """The lock, not the socket file, says who runs."""
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as old:
        old.bind(str(path))
    server = Serving(path)
    with ControlClient(path) as client:
        assert client.request({"op": "a"}) == {"echo": {"op": "a"}}
    server.stop()
    assert not path.exists()


@pytest.mark.parametrize("left", [False, True], ids=["no socket", "a dead socket"])
def test_without_a_supervisor_the_client_says_how_to_start_one(tmp_path: Path, left: bool) -> None:
    """NotRunning, exit code 7, one line with the mend."""
    path = tmp_path / "control.sock"
    if left:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as dead:
            dead.bind(str(path))
    with pytest.raises(NotRunning, match="enforcer run") as caught:
        ControlClient(path)
    assert caught.value.exit_code == 7
    assert "\n" not in str(caught.value)


def test_a_supervisor_that_dies_in_mid_answer_is_told_as_that(serving: Serving) -> None:
    """The command ends with an error instead of a traceback."""

    def die(_request: dict[str, Any], _descriptors: list[int]) -> dict[str, Any]:
        serving.tokens[-1].shutdown(socket.SHUT_RDWR)  # type: ignore[attr-defined]
        return {}

    serving.answer = die
    with ControlClient(serving.path) as client, pytest.raises(NotRunning):
        client.request({"op": "a"})


def test_a_supervisor_that_does_not_answer_is_given_up(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the named time, with the place to look at."""
    monkeypatch.setattr("enforcer.supervisor.client.TIMEOUT", 0.1)
    release = threading.Event()

    def hang(_request: dict[str, Any], _descriptors: list[int]) -> dict[str, Any]:
        release.wait(PATIENCE)
        return {}

    serving.answer = hang
    with ControlClient(serving.path) as client, pytest.raises(NotRunning, match="see its log"):
        client.request({"op": "a"})
    release.set()


def test_a_process_of_an_executor_is_not_served(serving: Serving) -> None:
    """Root with every capability, but in a governed cgroup: the connection is closed without an answer."""
    serving.governed = True
    with ControlClient(serving.path) as client, pytest.raises(NotRunning):
        client.request({"op": "status"})
    assert serving.tokens == []
