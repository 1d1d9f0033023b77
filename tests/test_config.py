"""The daemon's configuration: right by default, and every fault of a file is one clear line."""

from __future__ import annotations

import os
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest

from enforcer.config import MAX_SOCKET_PATH, Home, Settings, load_settings
from enforcer.errors import ConfigError


def write(root: Path, text: str | bytes) -> Path:
    path = root / "etc/enforcer/enforcer.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def faults(root: Path) -> list[str]:
    """The lines of the error, each of which names the file."""
    with pytest.raises(ConfigError) as caught:
        load_settings(root)
    assert caught.value.exit_code == 3
    lines = str(caught.value).splitlines()
    for line in lines:
        assert str(root) in line
    return lines


@pytest.mark.parametrize("text", ["", "# only a comment\n", "---\n", "{}\n"])
def test_an_empty_file_is_the_defaults(tmp_path: Path, text: str) -> None:
    """No policy is enabled, hence everything is denied; records are masked all the same."""
    write(tmp_path, text)
    settings = load_settings(tmp_path)
    assert settings == Settings(root=tmp_path)
    assert settings.policies == ()
    assert settings.record_mask == ("credit_card", "iban", "email", "us_ssn", "secrets")
    assert (settings.user, settings.listener_port) == ("enforcer", 15001)
    assert (settings.identify_timeout, settings.connect_timeout) == (1.0, 10.0)
    assert settings.worker_count == len(os.sched_getaffinity(0))


def test_what_the_file_says_is_taken(tmp_path: Path) -> None:
    """Every setting there is."""
    write(
        tmp_path,
        "policies: [eu-only, observe]\nworkers: 3\nuser: nobody\nlistener_port: 2000\nrecord_mask: [iban]\n"
        "identify_timeout: 0.5\nconnect_timeout: 2\ngroups: {HOME: [DE, AT]}\n"
        "expose: [/run/nscd, /dev/kmsg]\nunix_sockets: true\non_reload: close\n"
        "home: {regions: [DE], addresses: [203.0.113.7, '2001:db8::7'], elsewhere: warn}\n",
    )
    settings = load_settings(tmp_path)
    assert settings == Settings(
        root=tmp_path,
        policies=("eu-only", "observe"),
        workers=3,
        user="nobody",
        listener_port=2000,
        record_mask=("iban",),
        identify_timeout=0.5,
        connect_timeout=2.0,
        groups={"HOME": ("DE", "AT")},
        expose=(Path("/run/nscd"), Path("/dev/kmsg")),
        unix_sockets=True,
        on_reload="close",
        home=Home(
            regions=("DE",), addresses=(IPv4Address("203.0.113.7"), IPv6Address("2001:db8::7")), elsewhere="warn"
        ),
    )
    assert settings.worker_count == 3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("polices: [eu-only]", "polices: unknown setting; known are connect_timeout, expose, geo, groups, home, "),
        ("policies: eu-only", "policies: "),
        ("policies: [EU_only]", "policies.0: "),
        ("policies: [../../shadow]", "policies.0: "),
        ("policies: [[eu]]", "policies.0: "),
        ("workers: many", "workers: "),
        ("workers: -1", "workers: "),
        ("workers: 1000", "workers: "),
        ("workers: null", "workers: "),
        ("listener_port: 80", "listener_port: "),
        ("listener_port: 65536", "listener_port: "),
        ("record_mask: 7", "record_mask: "),
        ("identify_timeout: 0", "identify_timeout: "),
        ("identify_timeout: .nan", "identify_timeout: "),
        ("connect_timeout: .inf", "connect_timeout: "),
        ("connect_timeout: soon", "connect_timeout: "),
        ("expose: /run/nscd", "expose: "),
        ("expose: [run/nscd]", "expose.0: must be an absolute path"),
        ("expose: [/run/../etc]", "expose.0: must be"),
        ("expose: [/]", "expose.0: must be"),
        ("unix_sockets: 7", "unix_sockets: "),
        ("groups: [DE]", "groups: "),
        ("groups: {HOME: DE}", "groups.HOME: "),
        ("on_reload: never", "on_reload: "),
        ("resolver: {types: [A, ANY]}", "resolver.types.1: "),
        ("resolver: {port: 53}", "resolver.port: "),
        ("resolver: {cache_bytes: 1000}", "resolver.cache_bytes: "),
        ("resolver: {names_per_minute: 0}", "resolver.names_per_minute: "),
        ("resolver: {upstreams: [3.120.0.53]}", "resolver.upstreams.0: "),
        ("resolver: {upstreams: [{address: 5}]}", "resolver.upstreams.0.address"),
        ("resolver: {upstreams: [{address: dns.example}]}", "resolver.upstreams.0.address"),
        ("resolver: {upstreams: [{address: 3.120.0.53, port: 0}]}", "resolver.upstreams.0.port: "),
        ("resolver: {upstream: []}", "resolver.upstream: unknown setting; known are cache_bytes, enabled"),
        ("home: DE", "home: "),
        ("home: {region: [DE]}", "home.region: unknown setting; known are addresses, elsewhere"),
        ("home: {addresses: [5]}", "home.addresses.0: '5' is no IP"),
        ("home: {regions: [DE], elsewhere: allow}", "home.elsewhere: "),
        ("home: {regions: [DE], addresses: [here]}", "home.addresses.0"),
    ],
)
def test_a_bad_value_is_one_line_with_its_field(tmp_path: Path, text: str, words: str) -> None:
    """File, field and what is wrong with it."""
    path = write(tmp_path, text)
    (line,) = faults(tmp_path)
    assert line.startswith(f"{path}: {words}")
    assert len(line) > len(f"{path}: {words}")


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    """One line each: nobody wants to find them one by one."""
    path = write(tmp_path, "workers: many\nlistener_port: 1\nsurprise: 1\n")
    assert {line.removeprefix(f"{path}: ").split(":")[0] for line in faults(tmp_path)} == {
        "workers",
        "listener_port",
        "surprise",
    }


@pytest.mark.parametrize(
    "text",
    ["policies: [", "a: b: c", "\tworkers: 1", "policies: *gone", "- !!python/object:os.x {}", "\x00", '"\\U00FFFFFF"'],
)
def test_what_is_no_yaml_is_one_line(tmp_path: Path, text: str) -> None:
    """Several lines of the parser's become one; tags that would run code are not known."""
    write(tmp_path, text)
    (line,) = faults(tmp_path)
    assert "not valid YAML" in line


def test_a_key_that_is_there_twice_is_told(tmp_path: Path) -> None:
    """The second would count, and whoever reads the first believes in it."""
    path = write(tmp_path, "policies: [eu-only]\nworkers: 1\npolicies: [us-only]\n")
    assert faults(tmp_path) == [f"{path}:3: not valid YAML: the key 'policies' is given twice; correct it"]


def test_text_is_what_is_written(tmp_path: Path) -> None:
    """Norway is no false, as in policies; numbers and switches are read where a setting is one."""
    write(
        tmp_path,
        "home: {regions: [NO]}\ngroups: {NORTH: [DK, NO, SE]}\nworkers: 2\nidentify_timeout: 0.5\nuser: 0123\n"
        "unix_sockets: on\ntls: {intercept: no}\n",
    )
    settings = load_settings(tmp_path)
    assert (settings.home.regions, settings.groups) == (("NO",), {"NORTH": ("DK", "NO", "SE")})
    assert (settings.workers, settings.identify_timeout, settings.user) == (2, 0.5, "0123")
    assert (settings.unix_sockets, settings.tls.intercept) == (True, False)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("policies: eu-only", "policies: must be a list, such as [a, b]"),
        ("home: DE", "home: must be a mapping, such as {a: b}"),
        ("user: [a]", "user: must be a text"),
        ("workers: many", "workers: must be a whole number"),
        ("workers: 300", "workers: must be less than or equal to 256"),
        ("identify_timeout: soon", "identify_timeout: must be a number"),
        ("unix_sockets: perhaps", "unix_sockets: must be true or false"),
        ("on_reload: never", "on_reload: must be 'keep', 'recheck' or 'close'"),
        ("geo: {sources: [{name: aws}]}", "geo.sources.0.format: is missing"),
    ],
)
def test_faults_are_told_in_the_words_of_the_file(tmp_path: Path, text: str, told: str) -> None:
    """A list is a list there, no tuple, and what is wrong is said as what it must be."""
    path = write(tmp_path, text)
    assert faults(tmp_path) == [f"{path}: {told}"]


@pytest.mark.parametrize("text", ["[policies]", "eu-only", "5", "- policies: []"])
def test_what_is_no_mapping_is_one_line(tmp_path: Path, text: str) -> None:
    """With an example of what is meant."""
    write(tmp_path, text)
    (line,) = faults(tmp_path)
    assert "must be a mapping" in line


@pytest.mark.parametrize("text", ["5: x", "true: x", "null: x", "2020-01-01: x", "? [a]\n: x"])
def test_a_key_that_is_no_text_is_one_line(tmp_path: Path, text: str) -> None:
    """YAML has keys of every type; settings have names."""
    write(tmp_path, text)
    assert len(faults(tmp_path)) == 1


def test_root_is_an_option_not_a_setting(tmp_path: Path) -> None:
    """A file that moved itself elsewhere would be a riddle."""
    write(tmp_path, "root: /elsewhere")
    (line,) = faults(tmp_path)
    assert "root: is not a setting; use the --root option" in line


def test_bytes_that_are_not_utf8_are_told_with_their_place(tmp_path: Path) -> None:
    """Latin-1 from an old editor."""
    write(tmp_path, b"user: Andr\xe9\n")
    (line,) = faults(tmp_path)
    assert "byte 10 is not UTF-8; save the file as UTF-8" in line


def test_a_missing_file_says_how_to_get_one(tmp_path: Path) -> None:
    """The first start."""
    (line,) = faults(tmp_path)
    assert "does not exist; 'make install' writes one" in line


def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    """Here a directory in its place; for others a matter of permissions."""
    (tmp_path / "etc/enforcer/enforcer.yaml").mkdir(parents=True)
    (line,) = faults(tmp_path)
    assert "Is a directory" in line


def test_a_root_that_is_too_long_for_a_socket_is_told_before_anything_runs(tmp_path: Path) -> None:
    """sun_path has 108 bytes with its NUL (unix(7)); the last length that fits, fits."""
    tail = "/run/enforcer/control.sock"
    room = MAX_SOCKET_PATH - len(tail) - len(str(tmp_path)) - 1
    fits, too_long = tmp_path / ("x" * room), tmp_path / ("x" * (room + 1))
    for root in (fits, too_long):
        write(root, "")
    assert len(bytes(load_settings(fits).control_socket)) == MAX_SOCKET_PATH
    (line,) = faults(too_long)
    assert "too long for a socket; choose a shorter --root" in line


def test_everything_of_an_instance_lies_below_its_root(tmp_path: Path) -> None:
    """Tests and demos live beside a production instance without touching it; two roots never share a cgroup."""
    settings = Settings(root=tmp_path)
    places = [
        settings.etc,
        settings.policy_dir,
        settings.state,
        settings.run,
        settings.database,
        settings.control_socket,
    ]
    assert all(place.is_relative_to(tmp_path) for place in places)
    assert Settings().instance == "enforcer"
    other = Settings(root=tmp_path / "other")
    assert len({Settings().instance, settings.instance, other.instance}) == 3
    assert settings.instance.startswith("enforcer-")


def test_a_root_is_the_same_by_any_name(tmp_path: Path) -> None:
    """Relative, or through a symbolic link: one instance."""
    write(tmp_path / "root", "")
    (tmp_path / "link").symlink_to(tmp_path / "root")
    assert load_settings(tmp_path / "link").instance == load_settings(tmp_path / "root" / ".").instance


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{name: a, format: aws, url: 'http://example.net/x'}", "must be an https:// URL"),
        ("{name: a, format: aws, url: 'https://example.net/a b'}", "must be an https:// URL"),
        ("{name: a, format: aws, url: ''}", "must be an https:// URL"),
        ("{name: a, format: ibm}", "geo.sources.0.format"),
        ("{name: ../a, format: aws}", "geo.sources.0.name"),
        ("{name: a, format: aws, sha256: abc}", "geo.sources.0.sha256"),
        ("{name: a, format: aws, file: relative.json}", "must be an absolute path"),
        ("{name: a, format: aws}, {name: a, format: google}", "'a' is the name of two sources"),
    ],
)
def test_a_source_of_tables_that_cannot_be_used_is_told(tmp_path: Path, source: str, message: str) -> None:
    """Tables decide where data goes: nobody on the way may change them, and no name leads out of their directory."""
    write(tmp_path, f"geo: {{sources: [{source}]}}")
    (line,) = faults(tmp_path)
    assert message in line
