"""The daemon's configuration: `/etc/enforcer/enforcer.yaml`, validated whole before anything uses it.

`--root DIR` moves every path below DIR, and gives the instance its own cgroup and pins, so that tests and demos live
beside a production instance without touching it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Hashable
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainValidator, ValidationError

from enforcer.errors import ConfigError

# sun_path in struct sockaddr_un is 108 bytes including the final NUL (unix(7)).
MAX_SOCKET_PATH = 107

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]


def _absolute(path: Path) -> Path:
    if not path.is_absolute() or ".." in path.parts or path == Path("/"):
        raise ValueError("must be an absolute path without '..', and not '/'")
    return path


AbsolutePath = Annotated[Path, AfterValidator(_absolute)]


def _https(url: str) -> str:
    if not url.startswith("https://") or not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError("must be an https:// URL: nobody on the way may change what comes")
    return url


# Where services say what they do: into the host's own log, and to systemd that they are ready.
_UNIX_ALLOW = (
    "/dev/log",
    "/run/systemd/journal/dev-log",
    "/run/systemd/journal/socket",
    "/run/systemd/journal/stdout",
    "/run/systemd/notify",
)


def _ip(value: object) -> IPv4Address | IPv6Address:
    try:
        return ip_address(str(value))
    except ValueError:
        raise ValueError(f"{str(value)!r} is no IP address") from None


OnReload = Literal["keep", "recheck", "close"]
# Of a union pydantic would tell both branches' faults.
IpAddress = Annotated[IPv4Address | IPv6Address, PlainValidator(_ip)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Home(_Part):
    """Where this host and its stores have to be.

    `regions`: words as in policies, `[DE]` or `[EEA]`; none means unchecked. `addresses`: public addresses that the
    host goes out from and its interfaces do not carry, as behind NAT. `elsewhere`: what follows where it is elsewhere,
    or where nothing shows where it is: no executor runs, or a warning.
    """

    regions: tuple[str, ...] = ()
    addresses: tuple[IpAddress, ...] = ()
    elsewhere: Literal["refuse", "warn"] = "refuse"


class GeoSource(_Part):
    """One imported table. `format`: whose. `file` or `url`: where `enforcer geo update` takes it from. `sha256`: what
    it must hash to, where the operator pins it."""

    name: Name
    format: Literal["csv", "aws", "google", "azure", "oracle", "cloudflare", "mmdb", "ipfire"]
    file: AbsolutePath | None = None
    url: Annotated[str, AfterValidator(_https)] | None = None
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None


def _named_once(sources: tuple[GeoSource, ...]) -> tuple[GeoSource, ...]:
    names = [source.name for source in sources]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{twice[0]!r} is the name of two sources; name one otherwise")
    return sources


class Geo(_Part):
    """`sources`: tables that `enforcer geo update` imports. `cloud_regions`: countries of provider regions that are not
    known yet, `{aws/eu-new-1: DE}`. `max_change`: share of the addresses of a source that may change their region in
    one update. `stale_days`: age from which on a table is reported as old."""

    sources: Annotated[tuple[GeoSource, ...], AfterValidator(_named_once)] = ()
    cloud_regions: dict[str, str] = Field(default_factory=dict)
    max_change: Annotated[float, Field(gt=0, le=1)] = 0.1
    stale_days: Annotated[int, Field(ge=1)] = 180


class Upstream(_Part):
    """A resolver to ask. `tls`: the name in its certificate; with it, it is asked over TLS. `port`: 53, or 853
    with TLS."""

    address: IpAddress
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    tls: str | None = None


# Query types that may be let through. ANY, AXFR, IXFR and NULL may not.
QueryType = Literal[
    "A", "AAAA", "CAA", "CNAME", "DNSKEY", "DS", "HTTPS", "LOC", "MX", "NAPTR", "NS", "PTR", "SOA", "SRV", "SSHFP",
    "SVCB", "TLSA", "TXT",
]  # fmt: skip


class Resolver(_Part):
    """How names are resolved for executors. `port`: where in an executor's network namespace, or the first free one
    after it. `upstreams`: whom to ask; none means those of the host's /etc/resolv.conf. `types`: query types that are
    let through. `steer`: keep only answers in regions that the policies let the executor reach. `cache_bytes`: bound of
    the cache. `names_per_minute`: names of one registered domain that an executor may have asked upstream."""

    enabled: bool = True
    port: Annotated[int, Field(ge=1024, le=65535)] = 15053
    upstreams: tuple[Upstream, ...] = ()
    types: tuple[QueryType, ...] = ("A", "AAAA", "CNAME", "HTTPS", "MX", "NAPTR", "PTR", "SRV", "SVCB", "TXT")
    steer: bool = False
    cache_bytes: Annotated[int, Field(ge=1 << 16, le=1 << 30)] = 16 << 20
    names_per_minute: Annotated[int, Field(ge=1, le=100_000)] = 60


class ClientCertificate(_Part):
    """What to show servers that ask for a certificate. `host`: a name, or `*.suffix`. Both files are PEM."""

    host: Annotated[str, Field(min_length=1)]
    certificate: AbsolutePath
    key: AbsolutePath


class Tls(_Part):
    """`intercept`: TLS of executors ends here, and what is inside is judged; else it passes unread or not at all.
    `trust`: PEM files of authorities that servers' certificates may be signed by, beside the system's."""

    intercept: bool = True
    trust: tuple[AbsolutePath, ...] = ()
    client_certificates: tuple[ClientCertificate, ...] = ()


class Settings(BaseModel):
    """One instance's settings. Unknown keys are refused.

    `policies`: enabled policy files by name, in order. `workers`: proxy processes; 0 means one per core. `user`: whom
    workers run as. `listener_port`: port of the proxy inside an executor's network namespace. `record_mask`: detectors
    applied to every recorded text. `language_model`: directory of a spaCy pipeline, or name of an installed one, that
    finds names for the rules that ask for it. `identify_timeout`: seconds to wait for a client's first bytes before the
    flow counts as opaque. `connect_timeout`: seconds to wait for an upstream connection. `groups`: operator-defined
    region groups. `expose`: paths that executors see although they lie below /run or /dev. `unix_sockets`: executors
    may open Unix sockets, and so reach any service whose socket they see. `unix_allow`: sockets of the host that
    executors may connect and send to; where the kernel takes LSM programs no others of the host's are reached.
    `on_reload`: what becomes of open flows when a generation comes into force: they stay as judged, are judged again,
    or are closed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    root: Path = Path("/")
    policies: tuple[Name, ...] = ()
    workers: Annotated[int, Field(ge=0, le=256)] = 0
    user: str = "enforcer"
    listener_port: Annotated[int, Field(ge=1024, le=65535)] = 15001
    record_mask: tuple[str, ...] = ("credit_card", "iban", "email", "us_ssn", "secrets")
    language_model: str = ""
    identify_timeout: Annotated[float, Field(gt=0, le=60)] = 1.0
    connect_timeout: Annotated[float, Field(gt=0, le=120)] = 10.0
    groups: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    expose: tuple[AbsolutePath, ...] = ()
    unix_sockets: bool = False
    unix_allow: tuple[AbsolutePath, ...] = tuple(map(Path, _UNIX_ALLOW))
    home: Home = Home()
    geo: Geo = Geo()
    resolver: Resolver = Resolver()
    on_reload: OnReload = "recheck"
    tls: Tls = Tls()

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
    def authority(self) -> Path:
        """Where the local certificate authority is kept."""
        return self.state / "tls"

    @property
    def trust_bundle(self) -> Path:
        """The authorities that executors trust, as one PEM file for all to read."""
        return self.root / "var/cache/enforcer/trust/ca-bundle.pem"

    @property
    def java_trust(self) -> Path:
        """The same for Java, as a keystore."""
        return self.trust_bundle.with_suffix(".jks")

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
    document = _document(path, text)
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


class _Loader(yaml.SafeLoader):
    """Scalars are text as it is written, as in policies: `NO` is Norway, not false. What is a number or a switch, the
    setting's type says. A key is there once, for the second would count and the first be believed."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - as yaml has it
        first: [row for row in rows if row[0] == "tag:yaml.org,2002:null"]
        for first, rows in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        mapping: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                raise yaml.MarkedYAMLError(problem="a key is not text", problem_mark=key_node.start_mark)
            if key in mapping:
                raise yaml.MarkedYAMLError(problem=f"the key {key!r} is given twice", problem_mark=key_node.start_mark)
            mapping[key] = self.construct_object(value_node, deep=deep)
        return mapping


def _document(path: Path, text: str) -> Any:
    try:
        return yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark, problem = error.problem_mark or error.context_mark, error.problem or error.context
        at = f"{path}:{mark.line + 1}" if mark else str(path)
        raise ConfigError(f"{at}: not valid YAML: {problem}; correct it") from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # the latter: escapes beyond U+10FFFF
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}; correct it") from error


# What pydantic says in Python's words.
_MEANT = {
    "tuple_type": "must be a list, such as [a, b]",
    "dict_type": "must be a mapping, such as {a: b}",
    "model_type": "must be a mapping, such as {a: b}",
    "string_type": "must be a text",
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "missing": "is missing",
}


def _fault(item: Any) -> str:
    field = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        known = ", ".join(sorted(set(_model_of(item["loc"][:-1]).model_fields) - {"root"}))
        return f"{field}: unknown setting; known are {known}"
    said = item["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    return f"{field}: {_MEANT.get(item['type'], said)}"


def _model_of(path: tuple[int | str, ...]) -> type[BaseModel]:
    """The model of the settings at `path`, which may lead through lists."""
    model: type[BaseModel] = Settings
    for name in path:
        if isinstance(name, str):
            annotation = model.model_fields[name].annotation
            inner = [one for one in (annotation, *get_args(annotation)) if isinstance(one, type)]
            model = next(one for one in inner if issubclass(one, BaseModel))
    return model
