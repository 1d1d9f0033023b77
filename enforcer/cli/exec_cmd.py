"""`enforcer exec`: starts a command as an isolated executor.

The supervisor makes a governed cgroup; namespaces are born in it; the supervisor puts listeners into the network
namespace; then the command is born in the same cgroup: it is governed before its first instruction.
"""

from __future__ import annotations

import os
import pwd
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from enforcer import privileges
from enforcer.errors import ConfigError, HostError, UsageError
from enforcer.isolation import descriptors
from enforcer.isolation.filesystem import JAVA_TRUST, TRUST, View
from enforcer.isolation.start import Command, Isolation
from enforcer.isolation.syscalls import Filter
from enforcer.isolation.terminal import Terminal, path_of_terminal
from enforcer.supervisor.client import ControlClient

if TYPE_CHECKING:
    from enforcer.cli.context import Context
    from enforcer.config import Settings

# Shell convention: 128 + signal for a signal's death.
SIGNALLED = 128
# Bytes of a command line that are recorded.
MAX_ARGV = 4096
# By which programs are told of authorities when they do not ask the system: OpenSSL with Python and Go, curl, requests,
# pip, Node.js, npm, git, the AWS tools, Deno, Cargo, gRPC, httplib2, Ruby's Bundler, Google Cloud's tools, Nix.
TRUST_VARIABLES = (
    "SSL_CERT_FILE",
    "CURL_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
    "PIP_CERT",
    "NODE_EXTRA_CA_CERTS",
    "NPM_CONFIG_CAFILE",
    "GIT_SSL_CAINFO",
    "AWS_CA_BUNDLE",
    "DENO_CERT",
    "CARGO_HTTP_CAINFO",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
    "HTTPLIB2_CA_CERTS",
    "BUNDLE_SSL_CA_CERT",
    "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE",
    "NIX_SSL_CERT_FILE",
)
# By which every JVM is told of options, JVMs that bring a store of authorities of their own among them.
JAVA_VARIABLE = "JAVA_TOOL_OPTIONS"
# PostgreSQL's libpq would tie passwords to a TLS connection that ends at the enforcer; servers refuse that.
LIBPQ_VARIABLE, LIBPQ_VALUE = "PGCHANNELBINDING", "disable"


@click.command("exec", context_settings={"ignore_unknown_options": True})
@click.option("--name", default=None, help="Executor name that policies match; default: the command's own name.")
@click.option("--user", default=None, help="Run as this user; default: the one who called sudo.")
@click.option(
    "--writable",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Directory that a command of root's may write to, beside /tmp and /var/tmp. Repeatable.",
)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.pass_obj
def execute(
    context: Context, name: str | None, user: str | None, writable: tuple[Path, ...], command: tuple[str, ...]
) -> None:
    """Run COMMAND as an executor: no network but what the enforcer lets through.

    Ends with the command's own exit status; 128 + N when signal N killed it.
    """
    if os.geteuid() != 0:
        raise HostError("starting an executor must be done by root; use sudo, the command runs as you")
    settings = context.settings()
    account = _account(user)
    if account.pw_name == settings.user:
        raise UsageError(f"the workers run as {settings.user}; name another user with --user")
    descriptors.check_standard()
    view = _view(settings, account, writable)
    syscalls = Filter(unix_sockets=settings.unix_sockets)
    with ControlClient(settings.control_socket) as client, descriptors.Relayed():
        answer = client.request(
            {
                "op": "create executor",
                "name": name or _name_of(command[0]),
                "uid": account.pw_uid,
                "argv": _recorded(command),
            }
        )
        terminal = Terminal()
        with Isolation(Path(answer["cgroup"]), view, syscalls) as isolation:
            netns = isolation.network()
            client.request({"op": "listen"}, [netns])
            os.close(netns)
            code = isolation.run(_command(settings, command, account), terminal)
        terminal.take_back(code)
    sys.exit(code if code >= 0 else SIGNALLED - code)


def _view(settings: Settings, account: pwd.struct_passwd, writable: tuple[Path, ...]) -> View:
    for path in settings.expose:
        if not path.exists():
            raise ConfigError(
                f"{settings.etc}/enforcer.yaml: expose: {path} does not exist; make it, or take it off the list"
            )
    directories = tuple(path.resolve() for path in writable)
    for path in directories:
        if not path.is_dir() or path == Path("/"):
            raise UsageError(f"--writable {path}: must be a directory other than /; name one that exists")
    return View(
        hidden=(settings.etc, settings.state, settings.run),
        exposed=settings.expose,
        terminal=path_of_terminal(),
        read_only=account.pw_uid == 0,
        writable=directories,
        trust=settings.trust_bundle if settings.tls.intercept else None,
        java_trust=settings.java_trust if settings.tls.intercept else None,
    )


def _command(settings: Settings, command: tuple[str, ...], account: pwd.struct_passwd) -> Command:
    return Command(
        arguments=command,
        environment=environment_for(account, trust=settings.tls.intercept),
        directory=_working_directory(),
        uid=account.pw_uid,
        gid=account.pw_gid,
        groups=tuple(os.getgrouplist(account.pw_name, account.pw_gid)),
    )


def _working_directory() -> str:
    try:
        return str(Path.cwd())
    except FileNotFoundError:
        raise UsageError("the current directory has been removed; cd to another one") from None


def _account(user: str | None) -> pwd.struct_passwd:
    if user is not None:
        return privileges.find_user(user)
    sudo_uid = os.environ.get("SUDO_UID", "")
    if not sudo_uid.isdigit() or sudo_uid == "0":
        # It would own every file of the host, the enforcer's among them.
        raise UsageError("the command would run as root; name its user with --user, if need be --user root")
    try:
        return pwd.getpwuid(int(sudo_uid))
    except KeyError:
        raise UsageError(f"user id {sudo_uid} has no account here; name one with --user") from None


def _name_of(program: str) -> str:
    name = "".join(letter if letter.isalnum() else "-" for letter in Path(program).name.lower()).strip("-")
    return name or "executor"


def _recorded(command: tuple[str, ...]) -> list[str]:
    """The command line as text, whatever bytes it has; the beginning of one that is too long for a message."""
    raw = b"\0".join(map(os.fsencode, command))[:MAX_ARGV]
    return [part.decode("utf-8", "backslashreplace") for part in raw.split(b"\0")]


def environment_for(account: pwd.struct_passwd, *, trust: bool) -> dict[str, str]:
    """The caller's environment, with the account's own home when it is not the caller's. `trust`: and with the bundle
    of authorities, for programs that bring their own or look in a directory."""
    environment = dict(os.environ)
    if account.pw_uid != os.geteuid():
        environment.update(HOME=account.pw_dir, USER=account.pw_name, LOGNAME=account.pw_name, SHELL=account.pw_shell)
    if trust:
        environment.update(dict.fromkeys(TRUST_VARIABLES, str(TRUST)))
        # Of two settings of a property the later one counts: the caller's own stays in force.
        options = (f"-Djavax.net.ssl.trustStore={JAVA_TRUST}", environment.get(JAVA_VARIABLE, ""))
        environment[JAVA_VARIABLE] = " ".join(filter(None, options))
        environment.setdefault(LIBPQ_VARIABLE, LIBPQ_VALUE)
    return environment
