"""What is not masked arrives byte for byte, however long, slow or one-sided, and memory stays what it was."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Iterator

import psutil
import pytest

from enforcer.demo.world import FRANKFURT
from tests.clients import long_streams
from tests.clients.long_streams import CLEAR_PORT, PIECE, RAW_PORT, TLS_PORT, hash_of
from tests.clients.place import MASKED, PLAIN, Place
from tests.fixtures.world import Shell, eventually, measured

pytestmark = pytest.mark.world

# Bytes that a worker may hold of what a slow side does not take, and that it may keep of what has passed.
HELD_LIMIT, KEPT_LIMIT = 24_000_000, 12_000_000
# Bytes on their way at once in the buffers of four sockets, as large as the kernel makes them (tcp_rmem, tcp_wmem).
WAY_LIMIT = 64_000_000
HUGE = 1 << 30

SETUP = """
import hashlib, http.client, random, socket, subprocess, sys
sys.path.insert(0, root)
from tests.clients.long_streams import hash_of, stream

def connection(secure, host):
    kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
    made = kind(host, tls if secure else clear, timeout=300)
    made.connect()
    made.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made

def digest_of(response):
    digest = hashlib.sha256()
    while piece := response.read(1 << 18):
        digest.update(piece)
    return digest.hexdigest()
"""
DOWN = """
talk = connection(secure, host)
talk.request("GET", f"/down?{size}")
answer = digest_of(talk.getresponse())
"""
UP = """
talk = connection(secure, host)
talk.request("POST", "/up", body=stream(size), headers={"Content-Length": str(size)})
answer = talk.getresponse().read().decode()
"""
CURL_DOWN = """
command = ["curl", "-sS", "--http2", "-w", "%{stderr}%{http_version}", f"https://{host}/long/down?{size}"]
curl = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
answer = [digest_of(curl.stdout), curl.communicate()[1].decode()]
"""
CURL_UP = """
command = ["curl", "-sS", "--http2", "-T", "-", f"https://{host}/long/up"]
curl = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
for piece in stream(size):
    curl.stdin.write(piece)
answer = curl.communicate()[0].decode()
"""
MANY = """
chance = random.Random(seed)
letters = bytes(chance.choices(b"abcdefghijklmnop", k=1 << 18))
talks = [connection(secure, host) for secure in (False, True)]
answer = 0
for number in range(count):
    talk = talks[number % 2]
    size = int(2 ** chance.uniform(0, 17)) - 1
    start = chance.randrange(len(letters) - size)
    body = letters[start : start + size]
    parts = (body[at : at + 7000] for at in range(0, size, 7000))
    chunked, answered = chance.random() < 0.5, chance.choice(["chunked", "length"])
    headers = {"X-Answer": answered} | ({} if chunked else {"Content-Length": str(size)})
    talk.request("POST", "/echo", body=parts if chunked else body, headers=headers, encode_chunked=chunked)
    response = talk.getresponse()
    assert response.headers.get("Transfer-Encoding", "length") == answered or host != plain
    assert hashlib.sha256(response.read()).digest() == hashlib.sha256(body).digest(), (number, size)
    answer += size
"""


@pytest.fixture(scope="module")
def shell(place: Place) -> Iterator[Shell]:
    world = place.world
    pem = world.directory / FRANKFURT.name / "server.pem"
    world.spawn(FRANKFURT.name, sys.executable, long_streams.__file__, FRANKFURT.address, str(pem), log="bytes.log")
    world.wait_for(FRANKFURT, RAW_PORT)
    with Shell(place.instance) as running:
        ports = {"clear": CLEAR_PORT, "tls": TLS_PORT, "raw": RAW_PORT}
        root = long_streams.__file__.removesuffix("/tests/clients/long_streams.py")
        running.run(SETUP, root=root, plain=PLAIN, masked=MASKED, **ports)
        yield running


def resident(place: Place) -> int:
    """Bytes of memory that the workers hold together."""
    return sum(psutil.Process(one["pid"]).memory_info().rss for one in place.instance.status()["workers"])


def run(shell: Shell, code: str, **values: object) -> object:
    shell.start(code, **values)
    return shell.result(600)


secured = pytest.mark.parametrize("secure", [False, True], ids=["clear", "TLS"])


# --- long


@pytest.mark.full
@secured
@pytest.mark.parametrize("code", [DOWN, UP], ids=["down", "up"])
def test_a_gigabyte(place: Place, shell: Shell, code: str, secure: bool) -> None:
    """The same SHA-256 at both ends, and the workers are no larger for it."""
    before, begun = resident(place), time.monotonic()
    assert run(shell, code, secure=secure, host=PLAIN, size=HUGE) == hash_of(HUGE)
    measured(
        f"{HUGE / (time.monotonic() - begun) / 1e6:.0f} MB/s, {(resident(place) - before) / 1e6:.0f} MB more memory"
    )
    assert resident(place) - before < KEPT_LIMIT


@pytest.mark.parametrize("size", [4 * PIECE, pytest.param(HUGE // 4, marks=pytest.mark.full)])
def test_a_long_body_over_http2(place: Place, shell: Shell, size: int) -> None:
    """Down and up by curl and nginx, with the windows of HTTP/2 on both sides."""
    before, begun = resident(place), time.monotonic()
    assert run(shell, CURL_DOWN, host=PLAIN, size=size) == [hash_of(size), "2"]
    middle = time.monotonic()
    assert run(shell, CURL_UP, host=PLAIN, size=size) == hash_of(size)
    down, up = size / (middle - begun), size / (time.monotonic() - middle)
    measured(f"{down / 1e6:.0f} MB/s down, {up / 1e6:.0f} MB/s up")
    assert resident(place) - before < KEPT_LIMIT


@pytest.mark.full
@secured
def test_a_long_text_under_a_rule_that_masks(shell: Shell, secure: bool) -> None:
    """Looked through for what is not in it, a stream of 200 MB is what it was."""
    size = 200 * PIECE
    assert run(shell, DOWN, secure=secure, host=MASKED, size=size) == hash_of(size)


# --- many


def test_many_requests_of_every_size(shell: Shell) -> None:
    """Bodies both ways with Content-Length and in chunks, over two connections, one in TLS: each what it was."""
    assert run(shell, MANY, host=PLAIN, count=120, seed=1)


def test_many_requests_under_a_rule_that_masks(shell: Shell) -> None:
    """The same, where every answer is looked through and nothing is found."""
    assert run(shell, MANY, host=MASKED, count=60, seed=2)


@pytest.mark.full
@pytest.mark.parametrize("host", [PLAIN, MASKED])
def test_ten_thousand_requests_of_every_size(place: Place, shell: Shell, host: str) -> None:
    """Over two connections; and the workers keep nothing of them."""
    run(shell, MANY, host=host, count=500, seed=3)
    before = resident(place)
    passed = run(shell, MANY, host=host, count=10_000, seed=random.randrange(2**32))
    measured(f"{passed / 1e6:.0f} MB each way, {(resident(place) - before) / 1e6:.1f} MB more memory")
    assert resident(place) - before < KEPT_LIMIT


# --- one-sided


@pytest.mark.parametrize("pieces", [1, 16])
def test_a_client_that_ends_first_is_answered(shell: Shell, pieces: int) -> None:
    """Raw bytes, then the client's end: the server sees both, and its answer comes."""
    code = """
        link = socket.create_connection((host, raw), 60)
        for piece in stream(size):
            link.sendall(piece)
        link.shutdown(socket.SHUT_WR)
        answer = link.makefile("rb").read().decode()
    """
    assert run(shell, code, host=PLAIN, size=pieces * PIECE) == hash_of(pieces * PIECE)


def test_a_server_that_ends_first_still_hears(place: Place, shell: Shell) -> None:
    """Raw bytes of the server and its end; then what the client goes on sending arrives."""
    code = """
        link = socket.create_connection((host, raw), 60)
        link.sendall(b"mirror")
        digest = hashlib.sha256()
        while data := link.recv(65536):
            digest.update(data)
        for piece in stream(size):
            link.sendall(piece)
        link.close()
        answer = [digest.hexdigest(), hashlib.sha256(b"mirror" + b"".join(stream(size))).hexdigest()]
    """
    heard, said = run(shell, code, host=PLAIN, size=2 * PIECE + 1)  # type: ignore[misc]
    assert heard == hash_of(3 * PIECE)
    log = place.world.directory / "bytes.log"
    eventually(lambda: said in log.read_text(), "what came after the server's end")


@secured
def test_a_request_before_the_clients_end_is_answered(shell: Shell, secure: bool) -> None:
    """HTTP of a client that ends its side behind the request, as netcat does: the whole answer comes."""
    code = """
        talk = connection(secure, host)
        talk.sock.sendall(f"GET /down?{size} HTTP/1.1\\r\\nHost: {host}\\r\\nConnection: close\\r\\n\\r\\n".encode())
        if secure:
            talk.sock.shutdown  # a TLS client cannot end one side alone in Python: it closes its TCP side below
            socket.socket.shutdown(talk.sock, socket.SHUT_WR)
        else:
            talk.sock.shutdown(socket.SHUT_WR)
        response = http.client.HTTPResponse(talk.sock)
        response.begin()
        answer = digest_of(response)
    """
    assert run(shell, code, secure=secure, host=PLAIN, size=5 * PIECE) == hash_of(5 * PIECE)


# --- slow

SENT = "asking = connection(False, host); asking.request('GET', '/sent'); answer = int(asking.getresponse().read())"


def settled(read: object) -> int:
    """A number that grows, once it has not for a second."""
    seen, since = -1, time.monotonic()
    while time.monotonic() - since < 1:
        now = read()  # type: ignore[operator]
        if now != seen:
            seen, since = now, time.monotonic()
        time.sleep(0.05)
    return seen


@pytest.mark.full
@secured
def test_a_client_that_does_not_read_stops_the_server(place: Place, shell: Shell, secure: bool) -> None:
    """Of a long answer only what sockets hold is on its way, and little of it in our memory; then all of it comes."""
    size = 400 * PIECE
    run(shell, DOWN, secure=secure, host=PLAIN, size=PIECE)
    before = resident(place)
    run(
        shell,
        "slow = connection(secure, host); slow.request('GET', f'/down?{size}')",
        secure=secure,
        host=PLAIN,
        size=size,
    )
    on_its_way = settled(lambda: run(shell, SENT))
    held = resident(place) - before
    measured(f"{on_its_way / 1e6:.0f} MB on their way, {held / 1e6:.1f} MB of it ours")
    assert 0 < on_its_way < WAY_LIMIT
    assert held < HELD_LIMIT
    assert run(shell, "answer = digest_of(slow.getresponse())") == hash_of(size)
    assert resident(place) - before < HELD_LIMIT


@pytest.mark.full
def test_a_client_of_http2_that_does_not_read_stops_the_server(place: Place, shell: Shell) -> None:
    """The same by the windows of HTTP/2: nothing of a long answer is kept here for a client that takes its time."""
    size = 400 * PIECE
    run(shell, CURL_DOWN, host=PLAIN, size=PIECE)
    before = resident(place)
    start = CURL_DOWN.partition("answer")[0]
    run(shell, start, host=PLAIN, size=size)
    on_its_way = settled(lambda: run(shell, SENT))
    held = resident(place) - before
    measured(f"{on_its_way / 1e6:.0f} MB on their way, {held / 1e6:.1f} MB of it ours")
    assert 0 < on_its_way < WAY_LIMIT
    assert held < HELD_LIMIT
    assert run(shell, "answer = digest_of(curl.stdout)") == hash_of(size)


@pytest.mark.full
@secured
def test_a_server_that_does_not_read_stops_the_client(place: Place, shell: Shell, secure: bool) -> None:
    """The same the other way: the client's send blocks, memory stays, and once the server reads all of it arrives."""
    size = 400 * PIECE
    run(shell, UP, secure=secure, host=PLAIN, size=PIECE)
    before = resident(place)
    code = """
        import threading
        pushed = 0
        def counted():
            global pushed
            for piece in stream(size):
                for at in range(0, len(piece), 1 << 16):
                    yield piece[at : at + (1 << 16)]
                    pushed += 1 << 16
        slow = connection(secure, host)
        fields = {"Content-Length": str(size)}
        push = threading.Thread(target=lambda: slow.request("POST", "/held", body=counted(), headers=fields))
        push.start()
    """
    run(shell, code, secure=secure, host=PLAIN, size=size)
    pushed = settled(lambda: run(shell, "answer = pushed"))
    held = resident(place) - before
    measured(f"{pushed / 1e6:.0f} MB on their way, {held / 1e6:.1f} MB of it ours")
    assert 0 < pushed < WAY_LIMIT
    assert held < HELD_LIMIT
    release = "asking = connection(False, host); asking.request('GET', '/release'); asking.getresponse().read()"
    run(shell, release)
    assert run(shell, "push.join(); answer = slow.getresponse().read().decode()") == hash_of(size)
