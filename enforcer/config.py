"""The daemon's configuration: `/etc/enforcer/enforcer.yaml`, validated whole before anything uses it.

`--root DIR` moves every path below DIR, and gives the instance its own cgroup and pins, so that tests and demos live
beside a production instance without touching it.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from enforcer.errors import ConfigError

# sun_path in struct sockaddr_un is 108 bytes including the final NUL (unix(7)).
MAX_SOCKET_PATH = 107

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]


def _absolute(path: Path) -> Path:
    if not path.is_absolute() or ".." in path.parts or path == Path("/"):
        raise ValueError("must be an absolute path without '..', and not '/'")
    return path


AbsolutePath = Annotated[Path, AfterValidator(_absolute)]

# Where services say what they do: into the host's own log, and to systemd that they are ready.
_UNIX_ALLOW = (
    "/dev/log",
    "/run/systemd/journal/dev-log",
    "/run/systemd/journal/socket",
    "/run/systemd/journal/stdout",
    "/run/systemd/notify",
)


class Settings(BaseModel):
    """One instance's settings. Unknown keys are refused.

    `policies`: enabled policy files by name, in order. `workers`: proxy processes; 0 means one per core. `user`: whom
    workers run as. `listener_port`: port of the proxy inside an executor's network namespace. `record_mask`: detectors
    applied
    to every recorded text. `identify_timeout`: seconds to wait for a client's first bytes before the flow counts as
    opaque.
    `connect_timeout`: seconds to wait for an upstream connection. `groups`: operator-defined region groups.
    `expose`: paths that executors see although they lie below /run or /dev. `unix_sockets`: executors may open Unix
    sockets, and so reach any service whose socket they see. `unix_allow`: sockets of the host that executors may
    connect and send to; where the kernel takes LSM programs no others of the host's are reached.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    root: Path = Path("/")
    policies: tuple[Name, ...] = ()
    workers: Annotated[int, Field(ge=0, le=256)] = 0
    user: str = "enforcer"
    listener_port: Annotated[int, Field(ge=1024, le=65535)] = 15001
    record_mask: tuple[str, ...] = ("credit_card", "iban", "email", "us_ssn")
    identify_timeout: Annotated[float, Field(gt=0, le=60)] = 1.0
    connect_timeout: Annotated[float, Field(gt=0, le=120)] = 10.0
    groups: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    expose: tuple[AbsolutePath, ...] = ()
    unix_sockets: bool = False
    unix_allow: tuple[AbsolutePath, ...] = tuple(map(Path, _UNIX_ALLOW))

    @property
    def etc(self) -> Path:
        return self.root / "etc/enforcer"

    @property
    def policy_dir(self) -> Path:
        return self.etc / "policies"

    @property
    def state(self) -> Path:
        return self.root / "var/lib/enforcer"

    @property
    def run(self) -> Path:
        return self.root / "run/enforcer"

    @property
    def database(self) -> Path:
        return self.state / "sessions.db"

    @property
    def control_socket(self) -> Path:
        return self.run / "control.sock"

    @property
    def geo_caches(self) -> tuple[Path, ...]:
        """Where fetched and compiled tables lie, for all to read; the system's also serves other roots."""
        own, system = self.root / "var/cache/enforcer/geo", Path("/var/cache/enforcer/geo")
        return (own,) if own == system else (own, system)

    @property
    def instance(self) -> str:
        """Name of this instance's cgroup and pin directory, unique per root."""
        if self.root == Path("/"):
            return "enforcer"
        return f"enforcer-{hashlib.sha256(bytes(self.root)).hexdigest()[:8]}"

    @property
    def worker_count(self) -> int:
        return self.workers or len(os.sched_getaffinity(0))


def load_settings(root: Path) -> Settings:
    """Reads `ROOT/etc/enforcer/enforcer.yaml`. Raises ConfigError with one line per fault."""
    root = root.resolve()
    path = root / "etc/enforcer/enforcer.yaml"
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist; 'make install' writes one to start from") from None
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}; it must be readable by root") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: byte {error.start} is not UTF-8; save the file as UTF-8") from error
    try:
        document: Any = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if document is None:
        document = {}
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: must be a mapping of settings, such as 'policies: [eu-only]'")
    if "root" in document:
        raise ConfigError(f"{path}: root: is not a setting; use the --root option")
    try:
        settings = Settings.model_validate({**document, "root": root})
    except ValidationError as error:
        raise ConfigError("\n".join(f"{path}: {_fault(item)}" for item in error.errors())) from error
    if len(bytes(settings.control_socket)) > MAX_SOCKET_PATH:
        raise ConfigError(f"{settings.control_socket} is too long for a socket; choose a shorter --root")
    return settings


def _fault(item: Any) -> str:
    field = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        known = ", ".join(sorted(set(Settings.model_fields) - {"root"}))
        return f"{field}: unknown setting; known are {known}"
    return f"{field}: {item['msg']}"
