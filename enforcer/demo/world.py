"""Builds hosts as network namespaces, wires them to one agent host, and runs real servers in them.

An address such as 3.120.0.10 exists only inside. Nothing here has a route out, and everything is removed on exit, also
after a failure or Ctrl-C. Names carry a random part, so that worlds do not meet.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface, ip_interface
from pathlib import Path
from types import TracebackType
from typing import Self

from pyroute2 import IPRoute, NetNS, netns

from enforcer.capture.namespace import run_inside
from enforcer.demo.witness import Witness
from enforcer.errors import HostError

# Seconds a server may take until it accepts, and a process until it ends. An emulated machine compiles for minutes.
START_TIMEOUT, STOP_TIMEOUT = 1200.0, 10.0


@dataclass(frozen=True, slots=True)
class Site:
    """A host somewhere in the world: its name, and its addresses with the network it shares with the agent host."""

    name: str
    ipv4: str
    ipv6: str

    @property
    def address(self) -> str:
        return str(ip_interface(self.ipv4).ip)

    @property
    def address6(self) -> str:
        return str(ip_interface(self.ipv6).ip)


FRANKFURT = Site("frankfurt", "3.120.0.10/24", "2a05:d014::10/64")
VIRGINIA = Site("virginia", "52.0.0.10/24", "2600:1f18::10/64")


class World:
    """The agent host and its sites. Use as a context manager; `directory` is scratch space that goes with it."""

    def __init__(self, *sites: Site) -> None:
        if os.geteuid() != 0:
            raise HostError("network namespaces need root; use sudo")
        self.sites = sites
        self._mark = f"enf{secrets.token_hex(3)}"
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        try:
            self.directory = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="enforcer-world-")))
            self.directory.chmod(0o755)
            self._create("host")
            for number, site in enumerate(self.sites):
                self._create(site.name)
                self._wire(number, site)
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def path(self, name: str = "host") -> str:
        """The namespace file of a site, or of the agent host."""
        return f"/run/netns/{self._mark}-{name}"

    def command(self, name: str, *arguments: str) -> list[str]:
        """A command line that runs in a host of this world. Mounts stay as they are, unlike with `ip netns exec`."""
        return ["nsenter", f"--net={self.path(name)}", "--", *arguments]

    def spawn(self, name: str, *arguments: str, log: str) -> subprocess.Popen[bytes]:
        """Starts a process in a host; ended with the world. Its output goes to `directory/log`."""
        with (self.directory / log).open("ab") as output:
            process = subprocess.Popen(
                self.command(name, *arguments),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._stack.callback(stop, process)
        return process

    def witness(self, site: Site) -> Witness:
        """A listener on everything that arrives at a site."""
        fd = os.open(self.path(site.name), os.O_RDONLY | os.O_CLOEXEC)
        try:
            return run_inside(fd, lambda: self._stack.enter_context(Witness()))
        finally:
            os.close(fd)

    def nginx(self, site: Site, locations: str, *, workers: int = 1) -> None:
        """Serves HTTP on port 80 of both addresses; `locations` is the body of nginx's server block."""
        directory = self.directory / f"nginx-{site.name}"
        directory.mkdir()
        configuration = directory / "nginx.conf"
        configuration.write_text(
            f"daemon off; worker_processes {workers}; pid {directory}/nginx.pid; error_log {directory}/error.log;\n"
            "events { worker_connections 4096; }\n"
            "http { access_log off; client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;\n"
            " uwsgi_temp_path uwsgi; scgi_temp_path scgi; keepalive_requests 1000000;\n"
            f" server {{ listen {site.address}:80 reuseport backlog=4096; listen [{site.address6}]:80;\n"
            f" default_type application/json;\n{locations}\n }} }}\n"
        )
        directory.chmod(0o755)
        self.spawn(site.name, "nginx", "-p", str(directory), "-c", str(configuration), log=f"nginx-{site.name}.log")
        self.wait_for(site, 80)

    def postgres(self, site: Site, statements: str) -> None:
        """Runs PostgreSQL on port 5432 of both addresses, after `statements`; anyone may log in as postgres."""
        binaries = _postgres_binaries()
        data = self.directory / f"postgres-{site.name}"
        data.mkdir()
        shutil.chown(data, "postgres", "postgres")
        script = self.directory / f"{site.name}.sql"
        script.write_text(statements)
        as_postgres = ["runuser", "-u", "postgres", "--"]
        # No fsync and one template copy: this data is thrown away.
        _run(
            *as_postgres, f"{binaries}/initdb", "-D", str(data), "-A", "trust", "-E", "UTF8", "--no-sync", "--no-locale"
        )
        (data / "pg_hba.conf").write_text("local all all trust\nhost all all all trust\n")
        (data / "postgresql.auto.conf").write_text(
            f"listen_addresses = '{site.address},{site.address6}'\nunix_socket_directories = '{data}'\nfsync = off\n"
        )
        # Straight to the server, so that ending our process ends it and not a wrapper.
        self.spawn(
            site.name,
            "setpriv",
            "--reuid=postgres",
            "--regid=postgres",
            "--init-groups",
            f"{binaries}/postgres",
            "-D",
            str(data),
            log=f"postgres-{site.name}.log",
        )
        self.wait_for(site, 5432)
        # It listens before it lets anybody in.
        ready, deadline = [f"{binaries}/pg_isready", "-q", "-h", str(data)], time.monotonic() + START_TIMEOUT
        while subprocess.run(ready, check=False).returncode and time.monotonic() < deadline:
            time.sleep(0.05)
        _run(*as_postgres, "psql", "-qX", "-h", str(data), "-v", "ON_ERROR_STOP=1", "-f", str(script), "postgres")

    def wait_for(self, site: Site, port: int) -> None:
        """Returns once the site accepts on `port`. Raises HostError with the end of its log."""
        fd = os.open(self.path("host"), os.O_RDONLY | os.O_CLOEXEC)
        deadline = time.monotonic() + START_TIMEOUT
        try:
            while True:
                try:
                    run_inside(fd, lambda: socket.create_connection((site.address, port), 1).close())
                    return
                except OSError as error:
                    if time.monotonic() > deadline:
                        raise HostError(
                            f"no server on {site.name} port {port}: {error}; see {self.directory}"
                        ) from error
                    time.sleep(0.05)
        finally:
            os.close(fd)

    def _create(self, name: str) -> None:
        full = f"{self._mark}-{name}"
        netns.create(full)
        self._stack.callback(netns.remove, full)
        with NetNS(full) as inside:
            inside.link("set", index=1, state="up")

    def _wire(self, number: int, site: Site) -> None:
        """One veth pair between host and site; the host takes the network's first address."""
        near, far = f"{self._mark}h{number}", f"{self._mark}s{number}"
        with IPRoute() as here:
            here.link("add", ifname=near, kind="veth", peer=far)
            for interface, name in ((near, "host"), (far, site.name)):
                here.link("set", index=here.link_lookup(ifname=interface)[0], net_ns_fd=f"{self._mark}-{name}")
        for text in (site.ipv4, site.ipv6):
            interface4 = ip_interface(text)
            first = next(iter(interface4.network.hosts())) if interface4.version == 4 else interface4.network[1]
            _add_address("host", self._mark, near, ip_interface(f"{first}/{interface4.network.prefixlen}"))
            _add_address(site.name, self._mark, far, interface4)


def _add_address(name: str, mark: str, link: str, address: IPv4Interface | IPv6Interface) -> None:
    with NetNS(f"{mark}-{name}") as inside:
        index = inside.link_lookup(ifname=link)[0]
        # Without duplicate address detection an IPv6 address can be used at once.
        flags = {"flags": 0x02} if address.version == 6 else {}
        inside.addr("add", index=index, address=str(address.ip), prefixlen=address.network.prefixlen, **flags)
        inside.link("set", index=index, state="up")


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ends a process we started and everything in its session; kills what does not end."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _postgres_binaries() -> Path:
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not versions:
        raise HostError("PostgreSQL is not installed; apt-get install postgresql")
    return versions[-1].parent


def _run(*arguments: str) -> None:
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, cwd="/")
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no output"]
        raise HostError(f"{Path(arguments[0]).name} failed: {lines[-1]}; is Debian's package complete?")
