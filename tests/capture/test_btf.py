"""BTF is read as bpftool reads it."""

from __future__ import annotations

import re
import subprocess

import pytest

from enforcer.capture import btf

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def dump() -> str:
    command = ["bpftool", "btf", "dump", "file", str(btf.BTF)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("name", ["bpf_lsm_quotactl", "bpf_lsm_task_kill"])
def test_the_function_of_a_hook_is_the_kernels(dump: str, name: str) -> None:
    """The type id of a function is the one that bpftool shows."""
    match = re.search(rf"^\[(\d+)\] FUNC '{name}'", dump, re.MULTILINE)
    assert match
    assert btf.function_id(btf.BTF.read_bytes(), name.encode()) == int(match[1])


@pytest.mark.parametrize(
    ("structure", "member"), [("task_struct", "group_leader"), ("sk_buff", "len"), ("sock", "sk_type")]
)
def test_a_member_is_where_the_kernel_has_it(dump: str, structure: str, member: str) -> None:
    """A member's place in its structure is the one that bpftool shows, also behind bit fields."""
    text = re.search(rf"^\[\d+\] STRUCT '{structure}'.*\n((?:\t.*\n)+)", dump, re.MULTILINE)
    assert text
    match = re.search(rf"^\t'{member}' .*bits_offset=(\d+)", text[1], re.MULTILINE)
    assert match
    assert btf.member_offset(btf.BTF.read_bytes(), structure.encode(), member.encode()) * 8 == int(match[1])


def test_what_is_not_there_is_an_error() -> None:
    """A function or member that the kernel lacks is told, not guessed."""
    raw = btf.BTF.read_bytes()
    with pytest.raises(OSError, match="no such_function"):
        btf.function_id(raw, b"such_function")
    with pytest.raises(OSError, match=r"no task_struct\.such_member"):
        btf.member_offset(raw, b"task_struct", b"such_member")
