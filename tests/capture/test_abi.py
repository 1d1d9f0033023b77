"""Python's mirrors against what a C compiler makes of the same header, and against drift."""

from __future__ import annotations

import ctypes
import socket
from ipaddress import ip_address
from pathlib import Path

import pytest

from enforcer.capture import abi, source
from enforcer.capture.abi import CoarseVerdict, FlowRecord, Listener, Refusal, Tuple, check_layout, enum_names, layout
from enforcer.capture.tables import MAX_REGION_SETS
from enforcer.errors import KernelError
from tests.capture.native import build, run

STRUCTS: dict[str, type[ctypes.Structure]] = {
    "flow_record": FlowRecord,
    "tuple": Tuple,
    "listener": Listener,
    "refusal": Refusal,
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


@pytest.mark.parametrize(("enum", "last"), [("counter", "COUNTER_COUNT"), ("coarse_verdict", "")])
def test_enum_names_are_in_the_compilers_order(tmp_path: Path, enum: str, last: str) -> None:
    """The index of a counter in the map is the index of its name."""
    names = enum_names(enum)
    body = "\n".join(f'printf("%d\\n", {name});' for name in (*names, *([last] if last else [])))
    expected = [str(index) for index in range(len(names) + bool(last))]
    assert run(build(tmp_path, body)) == expected


def test_numbers_that_are_written_on_both_sides_are_the_same(tmp_path: Path) -> None:
    """Option numbers, limits, verdicts."""
    names = ["OPTION_FLOW_RECORD", "MAX_REGION_SETS", "COARSE_REFUSE", "COARSE_REDIRECT"]
    got = run(build(tmp_path, "\n".join(f'printf("%d\\n", {name});' for name in names)))
    ours = [abi.OPTION_FLOW_RECORD, MAX_REGION_SETS, CoarseVerdict.REFUSE, CoarseVerdict.REDIRECT]
    assert got == [str(int(number)) for number in ours]


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


SOUND = (("executor", ctypes.c_uint64), ("port", ctypes.c_uint16), ("pad", ctypes.c_uint16 * 3))


def test_the_same_layout_passes() -> None:
    """However the compiler's description calls its types."""
    check_layout("listener", Listener, struct(*SOUND))


@pytest.mark.parametrize(
    "compiled",
    [
        struct(("port", ctypes.c_uint16), ("executor", ctypes.c_uint64), ("pad", ctypes.c_uint16 * 3)),
        struct(("executor", ctypes.c_uint64), ("port", ctypes.c_uint32), ("pad", ctypes.c_uint16 * 2)),
        struct(("executor", ctypes.c_uint64), ("port_be", ctypes.c_uint16), ("pad", ctypes.c_uint16 * 3)),
        struct(("executor", ctypes.c_uint64), ("pad", ctypes.c_uint16 * 4)),
        struct(*SOUND[:2]),
        struct(*SOUND, ("more", ctypes.c_uint64)),
        struct(("executor", ctypes.c_uint64), ("port", ctypes.c_uint16), ("pad", ctypes.c_uint16 * 7)),
    ],
    ids=["order", "width", "name", "missing in the middle", "missing at the end", "one more", "longer"],
)
def test_any_drift_is_refused_in_one_line(compiled: type[ctypes.Structure]) -> None:
    """A field read at the wrong offset would be somebody else's identity."""
    with pytest.raises(KernelError, match=r"ABI drift in listener: .*; reinstall the package") as caught:
        check_layout("listener", Listener, compiled)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["3.120.0.10", "0.0.0.0", "255.255.255.255", "2a05:d014::1", "::", "::ffff:0:0"])
def test_addresses_and_ports_are_in_network_order(text: str) -> None:
    """Four words as the kernel stores them, whatever this machine's byte order."""
    address = ip_address(text)
    record = FlowRecord.from_buffer_copy(bytes(24) + address.packed.ljust(16, b"\0") + bytes(32))
    assert abi.address_of(record.address, address.version) == address
    assert abi.port_of(socket.htons(443)) == 443
