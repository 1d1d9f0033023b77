"""The bpf(2) layer: maps as the kernel holds them, and its refusals as errors that say which call and why."""

from __future__ import annotations

import errno
import platform
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from enforcer.capture import sysbpf
from enforcer.capture.generation import build_tries
from enforcer.capture.sysbpf import BPF_F_NO_PREALLOC, Map, MapType
from enforcer.errors import KernelError
from tests.fixtures.kernel import Prefixes

pytestmark = pytest.mark.kernel


def u32(*numbers: int) -> bytes:
    return struct.pack(f"={len(numbers)}I", *numbers)


@pytest.fixture
def array() -> Iterator[Map]:
    """Four slots of 32 bits; gone with its descriptor."""
    table = Map(sysbpf.map_create(MapType.ARRAY, key_size=4, value_size=4, max_entries=4), 4, 4)
    yield table
    table.close()


@pytest.fixture
def trie() -> Iterator[Map]:
    """Two IPv4 prefixes' worth of a longest-prefix trie."""
    fd = sysbpf.map_create(MapType.LPM_TRIE, key_size=8, value_size=4, max_entries=2, flags=BPF_F_NO_PREALLOC)
    table = Map(fd, 8, 4)
    yield table
    table.close()


def prefix(length: int, *address: int) -> bytes:
    return u32(length) + bytes(address)


def test_an_array_holds_what_is_put_into_it(array: Map) -> None:
    """Slots begin as zero; a slot that does not exist is a miss on reading and an error on writing."""
    assert array.lookup(u32(3)) == u32(0)
    array.update(u32(3), u32(77))
    assert array.lookup(u32(3)) == u32(77)
    assert array.lookup(u32(4)) is None
    assert list(array.keys()) == [u32(index) for index in range(4)]
    with pytest.raises(OSError, match="MAP_UPDATE_ELEM") as caught:
        array.update(u32(4), u32(1))
    assert caught.value.errno == errno.E2BIG


def test_a_trie_answers_with_the_longest_prefix(trie: Map) -> None:
    """What the geography rests on; deleting what is not there is fine."""
    trie.update_batch(prefix(8, 10, 0, 0, 0) + prefix(16, 10, 1, 0, 0), u32(1, 2), 2)
    assert trie.lookup(prefix(32, 10, 1, 2, 3)) == u32(2)
    assert trie.lookup(prefix(32, 10, 2, 2, 3)) == u32(1)
    assert trie.lookup(prefix(32, 11, 0, 0, 1)) is None
    trie.delete(prefix(16, 10, 1, 0, 0))
    trie.delete(prefix(16, 10, 1, 0, 0))
    assert trie.lookup(prefix(32, 10, 1, 2, 3)) == u32(1)


def test_a_batch_that_does_not_fit_is_an_error(trie: Map) -> None:
    """Never half a table taken for a whole one."""
    keys = b"".join(prefix(32, 10, 0, 0, last) for last in range(3))
    with pytest.raises(OSError, match=r"MAP_UPDATE_BATCH|entries were inserted"):
        trie.update_batch(keys, u32(1, 2, 3), 3)


def test_a_prefix_that_is_longer_than_its_address_is_refused(trie: Map) -> None:
    """By the kernel, with its errno."""
    with pytest.raises(OSError, match=r"bpf\(MAP_UPDATE_ELEM\): Invalid argument"):
        trie.update(prefix(33, 10, 0, 0, 0), u32(1))


def test_a_table_that_promises_more_than_it_holds_is_not_built() -> None:
    """Counted after inserting; every descriptor made on the way is closed again."""

    class Lying(Prefixes):
        @property
        def counts(self) -> dict[str, int]:
            return {"v4": 2, "v6": 0}

    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(OSError, match="promises 2 prefixes and holds 1"):
        build_tries(Lying({"10.0.0.0/8": 1}))
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize(
    ("sizes", "code"),
    [
        ({"key_size": 0, "value_size": 4, "max_entries": 1}, errno.EINVAL),
        ({"key_size": 4, "value_size": 4, "max_entries": 0}, errno.EINVAL),
    ],
)
def test_a_map_that_cannot_be_is_the_kernels_error(sizes: dict[str, int], code: int) -> None:
    """OSError with the call's name."""
    with pytest.raises(OSError, match=r"bpf\(MAP_CREATE\): Invalid argument") as caught:
        sysbpf.map_create(MapType.ARRAY, **sizes)
    assert caught.value.errno == code


def test_a_pin_that_is_not_there_is_the_kernels_error(tmp_path: Path) -> None:
    """No such file; and a file that is no BPF object is refused too."""
    with pytest.raises(FileNotFoundError, match=r"bpf\(OBJ_GET\)"):
        sysbpf.get_pinned(Path("/sys/fs/bpf/enforcer-test-gone/prog_x"))
    (tmp_path / "plain").write_text("")
    with pytest.raises(OSError, match=r"bpf\(OBJ_GET\)"):
        sysbpf.get_pinned(tmp_path / "plain")


def test_pinning_outside_a_bpf_file_system_is_the_kernels_error(array: Map, tmp_path: Path) -> None:
    """Nothing is left there."""
    with pytest.raises(OSError, match=r"bpf\(OBJ_PIN\)"):
        sysbpf.pin(array.fd, tmp_path / "pin")
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_link_or_program_is_refused(array: Map) -> None:
    """A descriptor of something else is never attached."""
    with pytest.raises(OSError, match=r"bpf\(LINK_UPDATE\)"):
        sysbpf.link_update(array.fd, array.fd)
    with pytest.raises(OSError, match=r"bpf\(LINK_CREATE\)"):
        sysbpf.link_create(array.fd, array.fd, sysbpf.AttachType.CGROUP_INET4_CONNECT)


def test_a_closed_map_is_the_kernels_error() -> None:
    """Also on reading: a miss and a failure are different things."""
    table = Map(sysbpf.map_create(MapType.ARRAY, key_size=4, value_size=4, max_entries=1), 4, 4)
    table.close()
    for call in (lambda: table.lookup(u32(0)), lambda: table.delete(u32(0)), lambda: list(table.keys()), table.pop):
        with pytest.raises(OSError, match=r"Bad file descriptor"):
            call()


def test_a_machine_whose_call_number_is_unknown_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rather than calling whatever has that number there."""
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    with pytest.raises(KernelError, match="not known on riscv64; use x86_64 or aarch64"):
        sysbpf.map_create(MapType.ARRAY, key_size=4, value_size=4, max_entries=1)
