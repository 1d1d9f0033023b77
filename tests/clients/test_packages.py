"""npm and apt, unchanged in an executor: allowed, masked, denied."""

from __future__ import annotations

import subprocess

import pytest

from enforcer.demo.world import VIRGINIA
from tests.clients.client import Client
from tests.clients.goods import SAYS, VERSION
from tests.clients.place import DENIED, MASKED, PLAIN
from tests.fixtures.world import Watch

pytestmark = [pytest.mark.world, pytest.mark.clients]


def npm(client: Client, host: str) -> subprocess.CompletedProcess[str]:
    directory = client.home / f"npm-{host}"
    directory.mkdir()
    options = ("--fetch-retries=0", "--no-audit", "--no-fund", "--no-update-notifier", f"--cache={directory}/cache")
    return client.run(
        "npm", "install", f"--prefix={directory}", f"--registry=https://{host}/npm/", *options, "demo-parcel"
    )


def test_npm_installs(client: Client) -> None:
    """The tarball's hash is the registry's, and the package speaks."""
    done = npm(client, PLAIN)
    assert done.returncode == 0, done.stderr
    assert client.must("node", f"{client.home}/npm-{PLAIN}/node_modules/demo-parcel").strip() == SAYS


def test_npm_from_a_masked_host_is_whole(client: Client) -> None:
    """The registry's document is masked, and the tarball, which is compressed, is what its hash says."""
    done = npm(client, MASKED)
    assert done.returncode == 0, done.stderr
    assert client.recorded(MASKED, "GET /npm/demo-parcel")["masked"] == {"email": 1}


def test_npm_is_denied(client: Client, virginia: Watch) -> None:
    """npm names the status; nothing arrives."""
    virginia.arrived()
    done = npm(client, DENIED)
    assert done.returncode != 0
    assert "E403" in done.stderr, done.stderr
    assert virginia.arrived() == []
    assert client.place.asked(VIRGINIA) == []


def apt(client: Client, host: str, *command: str) -> subprocess.CompletedProcess[str]:
    """apt-get with lists, cache and state of its own. Root in an executor cannot become apt's own user."""
    directory = client.home / f"apt-{host}"
    for name in ("lists/partial", "cache/archives/partial"):
        (directory / name).mkdir(parents=True, exist_ok=True)
    (directory / "sources.list").write_text(f"deb [trusted=yes] https://{host}/apt ./\n")
    (directory / "status").touch()
    settings = {
        "Dir::Etc::sourcelist": "sources.list",
        "Dir::Etc::sourceparts": "none",
        "Dir::State": "",
        "Dir::State::status": "status",
        "Dir::Cache": "cache",
    }
    options = [f"-o={name}={directory / value}" for name, value in settings.items()]
    return client.run("apt-get", "-o=APT::Sandbox::User=root", "-o=Acquire::Retries=0", *options, *command)


def test_apt_updates_and_downloads(client: Client) -> None:
    """The package is what the index says it is, and the index what the Release file says."""
    updated = apt(client, PLAIN, "update")
    assert updated.returncode == 0, updated.stderr
    done = apt(client, PLAIN, "download", "demo-parcel")
    assert done.returncode == 0, done.stderr
    name = f"demo-parcel_{VERSION}_all.deb"
    assert (client.home / name).read_bytes() == (client.place.tree(PLAIN) / "apt" / name).read_bytes()


def test_apt_does_not_take_a_masked_index(client: Client) -> None:
    """The maintainer's address is masked in it, so that it is not what the Release file says: apt tells, and stops."""
    done = apt(client, MASKED, "update")
    assert done.returncode != 0
    assert "Hash Sum mismatch" in done.stderr
    assert client.recorded(MASKED, "GET /apt/./Packages")["masked"] == {"email": 1}


def test_apt_is_denied(client: Client, virginia: Watch) -> None:
    """apt names the status; nothing arrives."""
    virginia.arrived()
    done = apt(client, DENIED, "update")
    assert "403" in done.stdout + done.stderr, done
    assert virginia.arrived() == []
