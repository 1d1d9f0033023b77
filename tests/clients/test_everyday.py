"""The clients that every host has, unchanged in an executor: curl, wget, Python, git, pip; allowed, masked, denied."""

from __future__ import annotations

import json
import os
import sys
from subprocess import CompletedProcess

import pytest

from enforcer.demo.world import FRANKFURT
from tests.clients.client import Client
from tests.clients.goods import SAYS, WHEEL
from tests.clients.place import DENIED, MASKED, ORDER, PLAIN, git
from tests.fixtures.world import CARD, EMAIL, MASKED_CARD, MASKED_EMAIL, Watch

pytestmark = pytest.mark.world

PYTHON = "import sys, urllib.request as u; sys.stdout.write(u.urlopen(sys.argv[1]).read().decode())"
# By name: how it is called. The same program over http where there is a difference to find.
FETCHERS = {
    "curl": ("curl", "-sS"),
    "curl --http2": ("curl", "-sS", "--http2"),
    "curl --compressed": ("curl", "-sS", "--compressed"),
    "wget": ("wget", "-nv", "-O-"),
    "python": (sys.executable, "-c", PYTHON),
}
CALLS = [*(("https", fetcher) for fetcher in FETCHERS), ("http", "curl"), ("http", "wget")]
HIDDEN = ORDER | {"card": MASKED_CARD, "contact": MASKED_EMAIL}
calls = pytest.mark.parametrize(("scheme", "fetcher"), CALLS)


@calls
def test_a_document_is_fetched(client: Client, scheme: str, fetcher: str) -> None:
    """What the server has, by one request."""
    before = len(client.place.asked(FRANKFURT))
    text = client.must(*FETCHERS[fetcher], f"{scheme}://{PLAIN}/order.json")
    assert json.loads(text) == ORDER
    (asked,) = client.place.asked(FRANKFURT)[before:]
    assert asked.startswith(f"{scheme} {PLAIN} GET /order.json 200 ")


@pytest.mark.parametrize(
    ("option", "client_side", "far_side"), [("--http1.1", "1.1", "HTTP/1.1"), ("--http2", "2", "HTTP/2.0")]
)
def test_the_version_that_the_client_wants_is_spoken_on_both_sides(
    client: Client, option: str, client_side: str, far_side: str
) -> None:
    """By ALPN, with the client and with the server."""
    version = client.must(
        "curl", "-sS", option, "-o", "version", "-w", "%{http_version}", f"https://{PLAIN}/order.json"
    )
    assert version == client_side
    assert client.place.asked(FRANKFURT)[-1].endswith(f" 200 {far_side}")


@calls
def test_a_document_is_masked(client: Client, scheme: str, fetcher: str) -> None:
    """The client prints what is left of card and address; the record counts both and holds neither."""
    path = f"/order.json?{scheme}{fetcher.replace(' ', '')}"
    assert json.loads(client.must(*FETCHERS[fetcher], f"{scheme}://{MASKED}{path}")) == HIDDEN
    exchange = client.recorded(MASKED, path)
    assert (exchange["rule"], exchange["status"]) == ("masked", "200")
    assert exchange["masked"] == {"credit_card": 1, "email": 1}


@calls
def test_a_document_is_denied(client: Client, virginia: Watch, scheme: str, fetcher: str) -> None:
    """The client says 403, or shows the problem; not even a SYN reaches the other region."""
    virginia.arrived()
    path = f"/order.json?{scheme}{fetcher.replace(' ', '')}"
    told = client.run(*FETCHERS[fetcher], f"{scheme}://{DENIED}{path}")
    if fetcher.startswith("curl"):
        assert json.loads(told.stdout)["rule"] == "nowhere-else", told
    else:
        assert "403" in told.stderr, told
    assert virginia.arrived() == []
    exchange = client.recorded(DENIED, path, denied=True)
    assert (exchange["action"], exchange["rule"]) == ("deny", "nowhere-else")


# --- git


def test_git_clones_and_pushes(client: Client) -> None:
    """A clone has the commit's very content; what is pushed is in the far repository."""
    client.must("git", "clone", "-q", f"https://{PLAIN}/git/demo.git", "plain")
    assert (client.home / "plain/README").read_text().startswith(SAYS)
    # Beyond `http.postBuffer` git sends chunks and asks whether it may.
    (client.home / "plain/large").write_bytes(os.urandom(3_000_000))
    client.must("git", "-C", "plain", "add", "large")
    identity = ("-c", "user.name=Ada", "-c", f"user.email={EMAIL}")
    client.must("git", "-C", "plain", *identity, "commit", "-q", "-m", "second")
    client.must("git", "-C", "plain", "push", "-q", "origin", "HEAD:pushed")
    far = client.place.tree(PLAIN) / "git/demo.git"
    assert git("log", "--format=%s", "pushed", directory=far).split() == ["second", "first"]
    git("fsck", "--strict", directory=far)


def test_git_from_a_masked_host_is_whole(client: Client) -> None:
    """A pack is compressed through and through: nothing in it is read, and nothing is broken by looking for it."""
    client.must("git", "clone", "-q", f"https://{MASKED}/git/demo.git", "masked")
    assert CARD in (client.home / "masked/README").read_text()
    assert client.recorded(MASKED, "POST /git/demo.git/git-upload-pack")["masked"] == {}


@pytest.mark.parametrize("act", ["clone", "push"])
def test_git_is_denied(client: Client, virginia: Watch, act: str) -> None:
    """git says 403, and nothing of the request leaves."""
    virginia.arrived()
    where = f"https://{DENIED}/git/demo.git"
    command = ("clone", "-q", where, "denied") if act == "clone" else ("-C", "plain", "push", "-q", where, "HEAD")
    done = client.run("git", *command)
    assert done.returncode != 0
    assert "The requested URL returned error: 403" in done.stderr, done
    assert virginia.arrived() == []


# --- pip


def pip(client: Client, host: str, act: str, *more: str, what: str = "demo-parcel") -> CompletedProcess[str]:
    command = (sys.executable, "-m", "pip", act, "--no-cache-dir", "--disable-pip-version-check", "--retries=0")
    return client.run(*command, f"--index-url=https://{host}/simple/", "--no-deps", *more, what)


def test_pip_installs_and_downloads(client: Client) -> None:
    """The wheel's hash is the index's, and the package speaks."""
    done = pip(client, PLAIN, "install", "--target=parcels")
    assert done.returncode == 0, done.stderr
    assert client.must(sys.executable, "-c", "import demo_parcel", PYTHONPATH="parcels").strip() == SAYS
    done = pip(client, PLAIN, "download", "--dest=wheels")
    assert done.returncode == 0, done.stderr
    far = client.place.tree(PLAIN) / "simple/demo-parcel"
    assert (client.home / "wheels" / WHEEL).read_bytes() == (far / WHEEL).read_bytes()


def test_pip_from_a_masked_host_is_whole(client: Client) -> None:
    """The page of the index is masked, and the wheel, which is compressed, is what its hash says."""
    done = pip(client, MASKED, "download", "--dest=masked-wheels")
    assert done.returncode == 0, done.stderr
    assert client.recorded(MASKED, "/simple/demo-parcel/")["masked"] == {"email": 1}


def test_pip_is_denied_a_package(client: Client, virginia: Watch) -> None:
    """pip tells of the 403; nothing arrives."""
    virginia.arrived()
    done = pip(client, DENIED, "install", "--target=denied", what=f"https://{DENIED}/simple/demo-parcel/{WHEEL}")
    assert done.returncode != 0
    assert "HTTP error 403" in done.stderr, done
    assert virginia.arrived() == []


@pytest.mark.clients
def test_pip_is_denied_an_index(client: Client, virginia: Watch) -> None:
    """It tells of the 403 when it is asked to tell more; nothing arrives."""
    virginia.arrived()
    done = pip(client, DENIED, "install", "--target=denied", "-vv")
    assert done.returncode != 0
    assert "403 Client Error: Forbidden for url" in done.stdout, done
    assert virginia.arrived() == []
