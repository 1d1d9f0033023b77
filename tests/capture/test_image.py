"""Compiled programs that are kept: they load as they did at first, and nothing damaged, foreign or made of other parts
is taken for them."""

from __future__ import annotations

import importlib.util
import os
import shutil
import struct
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import pytest

from enforcer.capture import compiler, image, loader, sysbpf
from enforcer.capture.image import Image, Images, MapImage, renumbered
from enforcer.capture.programs import HOOKS, MAPS, Where
from enforcer.errors import KernelError

KEY = "0123456789abcdef" * 4
ARRAY = MapImage("one_array", 2, 4, 8, 3, 0, 0, 0, "")
SAMPLE = Image((ARRAY,), b"types", {"program": b"code"})
# r0 = 0; exit
RETURN_ZERO = bytes.fromhex("b7000000000000009500000000000000")
# r1 = map 0; r2 = 1 (an address that is none of a map's); as include/uapi/linux/bpf.h has them.
ADDRESSES = bytes.fromhex("1811000000000000 0000000000000000 1802000001000000 0000000000000000")


@pytest.fixture
def images(tmp_path: Path) -> Images:
    (tmp_path / "images").mkdir(mode=0o700)
    return Images(tmp_path / "images")


def test_what_is_kept_is_what_was_made(images: Images, tmp_path: Path) -> None:
    """By its key, whole, and for root alone; another key has nothing."""
    assert images.get(KEY) is None
    images.put(KEY, SAMPLE)
    assert images.get(KEY) == SAMPLE
    assert images.get(KEY[::-1]) is None
    (path,) = (tmp_path / "images").iterdir()
    assert path.stat().st_mode & 0o077 == 0


def test_a_damaged_one_is_none(images: Images, tmp_path: Path) -> None:
    """Cut short, one bit changed, empty, or no file: the programs are compiled again."""
    images.put(KEY, SAMPLE)
    (path,) = (tmp_path / "images").iterdir()
    whole = path.read_bytes()
    for damaged in (whole[:-1], whole[:70] + bytes([whole[70] ^ 1]) + whole[71:], b"", b"\n"):
        path.write_bytes(damaged)
        assert images.get(KEY) is None
    path.write_bytes(whole)
    assert images.get(KEY) == SAMPLE
    path.unlink()
    path.mkdir()
    assert images.get(KEY) is None


@pytest.mark.parametrize("what", ["images", "file"])
@pytest.mark.parametrize("how", ["owner", "group", "others", "link"])
def test_what_others_could_have_written_is_none(images: Images, tmp_path: Path, what: str, how: str) -> None:
    """Owned by another user, writable by its group or by all, or a link: of the directory as of the file."""
    images.put(KEY, SAMPLE)
    (path,) = (tmp_path / "images").iterdir()
    place = tmp_path / "images" if what == "images" else path
    if how == "owner":
        os.chown(place, 65534, 0)
    elif how == "link":
        place.rename(tmp_path / "elsewhere")
        place.symlink_to(tmp_path / "elsewhere")
    else:
        place.chmod(0o770 if how == "group" else 0o702)
    assert images.get(KEY) is None


def test_only_the_last_ones_are_kept(images: Images, tmp_path: Path) -> None:
    """The least recently used goes first; half a file is none."""
    keys = [f"{number:064x}"[::-1] for number in range(1, image.KEPT + 2)]
    for age, key in enumerate(keys[:-1]):
        images.put(key, SAMPLE)
        os.utime(tmp_path / "images" / f"{key[:32]}.image", (1000 + age, 1000 + age))
    assert images.get(keys[0]) == SAMPLE
    images.put(keys[-1], SAMPLE)
    assert [key for key in keys if images.get(key) is None] == [keys[1]]
    assert len(list((tmp_path / "images").iterdir())) == image.KEPT


def test_where_nothing_can_be_kept_nothing_fails(tmp_path: Path) -> None:
    """A file where the directory should be: no image, no waiting, and no error."""
    (tmp_path / "images").write_text("")
    images = Images(tmp_path / "images/programs")
    with images.alone():
        assert images.get(KEY) is None
        images.put(KEY, SAMPLE)
    assert images.get(KEY) is None


def test_two_do_not_compile_at_once(images: Images) -> None:
    """The second waits, and finds what the first one kept."""
    found: list[Image | None] = []

    def second() -> None:
        with images.alone():
            found.append(images.get(KEY))

    thread = threading.Thread(target=second)
    with images.alone():
        thread.start()
        thread.join(0.2)
        assert found == []
        images.put(KEY, SAMPLE)
    thread.join(20)
    assert found == [SAMPLE]


def test_only_addresses_of_maps_are_numbered_anew() -> None:
    """The second half of such an instruction is none itself, and other constants are left as they are."""
    changed = renumbered(ADDRESSES, lambda place: place + 77)
    assert struct.unpack_from("=i", changed, 4) == (77,)
    assert changed[8:] == ADDRESSES[8:]
    # A second half that looks like the first of one.
    twice = ADDRESSES[:8] + ADDRESSES[:8]
    assert renumbered(twice, lambda place: place + 77)[8:] == twice[8:]


@pytest.mark.kernel
def test_the_verifier_has_the_last_word() -> None:
    """What it refuses is refused with its reason, where it comes to one; what is sound is loaded."""
    kind = sysbpf.ProgramType.CGROUP_SOCK
    attach_type = sysbpf.AttachType.CGROUP_INET_SOCK_CREATE
    os.close(sysbpf.program_load(kind, RETURN_ZERO, name="sound", attach_type=attach_type))
    with pytest.raises(OSError, match=r"R0 !read_ok"):
        sysbpf.program_load(kind, RETURN_ZERO[8:], name="unsound", attach_type=attach_type)


# In a process of its own, which keeps the compiler to itself.
LOAD = """
import sys
from pathlib import Path
from enforcer.capture import compiler, loader
if sys.argv[3:] == ["without a compiler"]:
    compiler.compile_programs = None
loader.load(Path(sys.argv[1]), Path(sys.argv[2]))
"""


@pytest.mark.compiler
@pytest.mark.kernel
def test_a_second_load_needs_no_compiler(tmp_path: Path) -> None:
    """The same programs, instruction by instruction, and maps of the same form."""
    first = loaded(tmp_path / "images")
    assert first == loaded(tmp_path / "images", "without a compiler")
    needed = {f"prog_{hook.program}" for hook in HOOKS if hook.where is not Where.LSM} | {
        f"map_{name}" for name in MAPS
    }
    assert needed <= first.keys()


def loaded(images: Path, *options: str) -> dict[str, object]:
    """Loads once; what two loads of the same programs have in common, by the names of the pins."""
    pins = Path(f"/sys/fs/bpf/enforcer-test-{os.urandom(4).hex()}")
    pins.mkdir()
    try:
        subprocess.run([sys.executable, "-P", "-c", LOAD, str(pins), str(images), *options], check=True)
        return {path.name: details(path) for path in pins.iterdir()}
    finally:
        shutil.rmtree(pins)


def details(path: Path) -> object:
    fd = sysbpf.get_pinned(path)
    try:
        return sysbpf.map_details(fd)[0] if path.name.startswith("map_") else sysbpf.program_tag(fd)
    finally:
        os.close(fd)


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A compiler that compiles nothing, on a kernel that takes everything; the texts that it was given."""
    texts: list[str] = []

    def compile_programs(text: str, _cflags: list[str], _scratch: Path) -> Image:
        texts.append(text)
        return SAMPLE

    monkeypatch.setattr(compiler, "compile_programs", compile_programs)
    monkeypatch.setattr(loader, "_load", lambda *_: None)
    return texts


def test_an_image_is_of_its_sources_kernel_and_compiler(
    compiled: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of them changed, in whatever way, is compiled anew; unchanged it is not."""
    load = partial(loader.load, tmp_path, tmp_path / "images")
    load()
    load()
    assert len(compiled) == 1
    changes = [
        (loader, "flatten", lambda _directory: "another text"),
        (loader, "_types", lambda: b""),
        (os, "uname", lambda: os.uname_result(("Linux", "host", "6.1.0-99-amd64", "#1 SMP", "x86_64"))),
        (compiler, "stamp", lambda: "another compiler"),
    ]
    for module, name, change in changes:
        if name == "_types" and loader._places(b"") == loader._places(loader._types()):
            continue  # this kernel has its task_struct as one that does not say
        with monkeypatch.context() as patch:
            patch.setattr(module, name, change)
            compiled.clear()
            load()
            load()
            assert len(compiled) == 1, name


def test_what_tells_compilers_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another compiler, one that was replaced, none; other headers."""
    monkeypatch.delitem(sys.modules, "bcc", raising=False)
    stamps = {compiler.stamp()}
    module = tmp_path / "bcc.py"
    monkeypatch.syspath_prepend(tmp_path)
    module.write_text("")
    for time in (1000, 2000):
        os.utime(module, (time, time))
        stamps.add(compiler.stamp())
    monkeypatch.setattr(compiler.headers, "stamp", lambda: "others")  # type: ignore[attr-defined]
    stamps.add(compiler.stamp())
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    stamps.add(compiler.stamp())
    assert len(stamps) == 5


def test_what_the_kernel_refused_is_not_kept(
    compiled: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next start compiles it again."""

    def refuse(*_: object) -> None:
        raise KernelError("the kernel refused program connect4")

    with monkeypatch.context() as patch:
        patch.setattr(loader, "_load", refuse)
        with pytest.raises(KernelError):
            loader.load(tmp_path, tmp_path / "images")
    loader.load(tmp_path, tmp_path / "images")
    assert len(compiled) == 2
