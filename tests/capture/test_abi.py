"""Python's mirrors against what a C compiler makes of the same header, and against drift."""

from __future__ import annotations

import ctypes
import socket
from ipaddress import ip_address
from pathlib import Path

import pytest

from enforcer.capture import abi, source
from enforcer.capture.abi import FlowRecord, GuardedPort, Listener, Refusal, Tuple, check_layout, enum_names, layout
from enforcer.capture.generation import MAX_EXECUTORS, MAX_REGION_SETS
from enforcer.capture.tables import MAX_CGROUP_LEVEL
from enforcer.errors import KernelError
from tests.capture.native import build, run

STRUCTS: dict[str, type[ctypes.Structure]] = {
    "executor": abi.Executor,
    "owner": abi.Owner,
    "flow_record": FlowRecord,
    "tuple": Tuple,
    "place": abi.Place,
    "listener": Listener,
    "guarded_port": abi.GuardedPort,
    "port_range": abi.PortRange,
    "audience": abi.Audience,
    "direct_key": abi.DirectKey,
    "direct_range": abi.DirectRange,
    "direct_ports": abi.DirectPorts,
    "refusal": Refusal,
    "direct_event": abi.DirectEvent,
    "cgroup_event": abi.CgroupEvent,
    "path_prefix": abi.PathPrefix,
}


ENUMS = [
    ("counter", "COUNTER_COUNT"),
    ("coarse_verdict", ""),
    ("executor_mode", ""),
    ("flow_path", ""),
    ("cgroup_event_kind", ""),
]
# Python's own enums -> the names in the header, whose prefix is left out here.
MIRRORED = {
    "coarse_verdict": abi.CoarseVerdict,
    "executor_mode": abi.ExecutorMode,
    "flow_path": abi.FlowPath,
    "cgroup_event_kind": abi.CgroupEventKind,
}


@pytest.mark.parametrize("name", STRUCTS)
def test_a_mirror_has_the_compilers_sizes_and_offsets(tmp_path: Path, name: str) -> None:
    """Every field, and the whole."""
    mirror = STRUCTS[name]
    fields = [field for field, _, _ in layout(mirror)]
    body = f'printf("%zu\\n", sizeof(struct {name}));\n' + "\n".join(
        f'printf("%zu %zu\\n", offsetof(struct {name}, {field}), sizeof(((struct {name} *)0)->{field}));'
        for field in fields
    )
    size, *numbers = map(int, run(build(tmp_path, body)))
    assert size == ctypes.sizeof(mirror)
    assert list(zip(numbers[::2], numbers[1::2], strict=True)) == [
        (offset, width) for _, offset, width in layout(mirror)
    ]


@pytest.mark.parametrize("name", STRUCTS)
def test_a_struct_has_no_hole(name: str) -> None:
    """Padding is written by hand: a key with a hole would compare bytes that nobody set."""
    end = 0
    for field, offset, size in layout(STRUCTS[name]):
        assert offset == end, field
        end = offset + size
    assert end == ctypes.sizeof(STRUCTS[name])


def test_prefix_keys_are_packed_as_the_table_packs_them(tmp_path: Path) -> None:
    """Prefix length, then the address: 8 and 20 bytes (struct bpf_lpm_trie_key)."""
    body = "\n".join(
        f'printf("%zu %zu ", sizeof(struct {name}), offsetof(struct {name}, length));'
        f'printf("%zu\\n", offsetof(struct {name}, address));'
        for name in ("prefix4", "prefix6")
    )
    assert run(build(tmp_path, body)) == ["8", "0", "4", "20", "0", "4"]


@pytest.mark.parametrize(("enum", "last"), ENUMS)
def test_enum_names_are_in_the_compilers_order(tmp_path: Path, enum: str, last: str) -> None:
    """The index of a counter in the map is the index of its name."""
    names = enum_names(enum)
    body = "\n".join(f'printf("%d\\n", {name});' for name in (*names, *([last] if last else [])))
    expected = [str(index) for index in range(len(names) + bool(last))]
    assert run(build(tmp_path, body)) == expected


@pytest.mark.parametrize("enum", MIRRORED)
def test_an_enum_of_ours_has_the_headers_names_and_order(enum: str) -> None:
    """The header's names but for their common beginning."""
    assert [name.partition("_")[2] for name in enum_names(enum)] == [member.name for member in MIRRORED[enum]]


def test_numbers_that_are_written_on_both_sides_are_the_same(tmp_path: Path) -> None:
    """Option numbers, limits, verdicts."""
    ours = {
        "OPTION_FLOW_RECORD": abi.OPTION_FLOW_RECORD,
        "MAX_REGION_SETS": MAX_REGION_SETS,
        "MAX_EXECUTORS": MAX_EXECUTORS,
        "MAX_CGROUP_LEVEL": MAX_CGROUP_LEVEL,
        "MAX_HOST_RANGES": abi.MAX_HOST_RANGES,
        "MAX_DIRECT_RANGES": abi.MAX_DIRECT_RANGES,
        "PATH_BYTES": abi.PATH_BYTES,
    }
    got = run(build(tmp_path, "\n".join(f'printf("%d\\n", {name});' for name in ours)))
    assert got == [str(number) for number in ours.values()]


def test_an_enum_that_is_not_there_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A header of another version: one line, not an empty list of counters."""
    (tmp_path / "abi.h").write_text("enum other { A };\n")
    monkeypatch.setattr(abi, "source_directory", lambda: tmp_path)
    enum_names.cache_clear()
    try:
        with pytest.raises(KernelError, match="no enum counter; reinstall the package"):
            enum_names("counter")
    finally:
        enum_names.cache_clear()
    assert source.source_directory() != tmp_path


def test_comments_in_an_enum_are_not_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those with commas and over several lines."""
    (tmp_path / "abi.h").write_text("enum e {\n\tA, /* one, two */\n\t/* B,\n\t * C */\n\tD,\n\tE_COUNT,\n};\n")
    monkeypatch.setattr(abi, "source_directory", lambda: tmp_path)
    enum_names.cache_clear()
    try:
        assert enum_names("e") == ("A", "D")
    finally:
        enum_names.cache_clear()


def struct(*fields: tuple[str, type]) -> type[ctypes.Structure]:
    return type("Compiled", (ctypes.Structure,), {"_fields_": fields})


SOUND = (("netns", ctypes.c_uint64), ("port", ctypes.c_uint16), ("pad", ctypes.c_uint16 * 3))


def test_the_same_layout_passes() -> None:
    """However the compiler's description calls its types."""
    check_layout("guarded_port", GuardedPort, struct(*SOUND))


@pytest.mark.parametrize(
    "compiled",
    [
        struct(("port", ctypes.c_uint16), ("netns", ctypes.c_uint64), ("pad", ctypes.c_uint16 * 3)),
        struct(("netns", ctypes.c_uint64), ("port", ctypes.c_uint32), ("pad", ctypes.c_uint16 * 2)),
        struct(("netns", ctypes.c_uint64), ("port_be", ctypes.c_uint16), ("pad", ctypes.c_uint16 * 3)),
        struct(("netns", ctypes.c_uint64), ("pad", ctypes.c_uint16 * 4)),
        struct(*SOUND[:2]),
        struct(*SOUND, ("more", ctypes.c_uint64)),
        struct(("netns", ctypes.c_uint64), ("port", ctypes.c_uint16), ("pad", ctypes.c_uint16 * 7)),
    ],
    ids=["order", "width", "name", "missing in the middle", "missing at the end", "one more", "longer"],
)
def test_any_drift_is_refused_in_one_line(compiled: type[ctypes.Structure]) -> None:
    """A field read at the wrong offset would be somebody else's identity."""
    with pytest.raises(KernelError, match=r"ABI drift in guarded_port: .*; reinstall the package") as caught:
        check_layout("guarded_port", GuardedPort, compiled)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["3.120.0.10", "0.0.0.0", "255.255.255.255", "2a05:d014::1", "::", "::ffff:0:0"])
def test_addresses_and_ports_are_in_network_order(text: str) -> None:
    """Four words as the kernel stores them, whatever this machine's byte order."""
    address = ip_address(text)
    record = FlowRecord.from_buffer_copy(bytes(32) + address.packed.ljust(16, b"\0") + bytes(24))
    assert abi.address_of(record.address, address.version) == address
    assert abi.port_of(socket.htons(443)) == 443
