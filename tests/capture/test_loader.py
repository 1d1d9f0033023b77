"""Loading that fails: one line with the mend, nothing pinned, nothing attached."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import enforcer
from enforcer.capture import programs
from enforcer.capture.programs import Pins, run_loader
from enforcer.capture.source import source_directory
from enforcer.errors import HostError


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of what the loader needs, which its child process will use."""
    ours = Path(enforcer.__file__).parent
    shutil.copytree(ours / "capture", tmp_path / "enforcer/capture")
    for module in ("__init__.py", "errors.py", "flow.py"):
        shutil.copy(ours / module, tmp_path / "enforcer" / module)
    shutil.copytree(source_directory(), tmp_path / "bpf")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


@pytest.fixture
def pins(tmp_path: Path) -> Path:
    path = tmp_path / "pins"
    path.mkdir()
    return path


def one_line(pins: Path) -> str:
    """The loader's error, which is a HostError of one line."""
    with pytest.raises(HostError) as caught:
        run_loader(pins)
    assert list(pins.iterdir()) == []
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.compiler
@pytest.mark.kernel
def test_a_program_that_does_not_compile_is_one_line_with_file_and_line(package: Path, pins: Path) -> None:
    """The compiler's own position, in the header that is broken."""
    header = package / "bpf/hooks/connect.h"
    header.write_text(header.read_text() + "\nint broken = nothing_of_this_name;\n")
    message = one_line(pins)
    assert f"connect.h:{len(header.read_text().splitlines())}:" in message
    assert "did not compile" in message


@pytest.mark.compiler
@pytest.mark.kernel
def test_a_struct_that_drifted_is_refused_before_anything_is_pinned(package: Path, pins: Path) -> None:
    """A header with one more field than its mirror."""
    header = package / "bpf/abi.h"
    text = header.read_text()
    assert text.count("\t__u8 path;") == 1
    header.write_text(text.replace("\t__u8 path;", "\t__u8 surprise;\n\t__u8 path;"))
    assert "ABI drift in " in one_line(pins)


@pytest.mark.compiler
@pytest.mark.kernel
def test_a_program_that_the_kernel_refuses_is_named(package: Path, pins: Path) -> None:
    """An endless loop does not pass the verifier."""
    main = package / "bpf/enforcer.c"
    text = main.read_text()
    start = text.index("int connect4(")
    body = text.index("{", start) + 1
    main.write_text(text[:body] + "\n\tvolatile int forever = 1;\n\twhile (forever) { }\n" + text[body:])
    message = one_line(pins)
    assert "the kernel refused program connect4" in message


def test_a_missing_header_of_ours_is_one_line(package: Path, pins: Path) -> None:
    """A damaged installation says so."""
    (package / "bpf/maps.h").unlink()
    assert "maps.h: No such file or directory; reinstall the package" in one_line(pins)


def test_without_our_sources_the_package_is_to_be_reinstalled(package: Path, pins: Path) -> None:
    """Neither beside the package nor inside it."""
    shutil.rmtree(package / "bpf")
    assert "reinstall the package" in one_line(pins)


def test_without_bcc_one_line_says_what_to_install(package: Path, pins: Path) -> None:
    """The module is Debian's and may be missing."""
    (package / "bcc.py").write_text("raise ImportError('no bcc')")
    assert one_line(pins) == "Python's bcc module is missing; apt-get install python3-bpfcc"


def test_without_headers_one_line_says_what_to_install(package: Path, pins: Path) -> None:
    """Found out before the compiler is started."""
    module = package / "enforcer/capture/headers.py"
    module.write_text(module.read_text().replace('Path("/")', f'Path("{package}")'))
    (package / "bcc.py").write_text("")
    assert "apt-get install linux-headers-amd64" in one_line(pins)


def test_a_package_in_the_working_directory_is_not_loaded_as_root(
    package: Path, pins: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The supervisor may be started anywhere; what lies there is not its code."""
    (package / "bcc.py").write_text("raise ImportError('no bcc')")
    (package / "elsewhere/enforcer/capture").mkdir(parents=True)
    for folder in ("enforcer", "enforcer/capture"):
        (package / "elsewhere" / folder / "__init__.py").write_text("")
    (package / "elsewhere/enforcer/capture/loader.py").write_text("raise SystemExit('planted')")
    monkeypatch.chdir(package / "elsewhere")
    assert "apt-get install python3-bpfcc" in one_line(pins)


def test_a_loader_that_is_killed_leaves_nothing_but_its_set(
    package: Path, pins: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed while it compiles: what it had laid out is in the directory of the set, which whoever started it removes,
    or the next start; nothing is where nobody looks."""
    compiler = "import os\nclass BPF:\n    def __init__(self, **_):\n        os.kill(os.getpid(), 9)\n"
    (package / "bcc.py").write_text(compiler)
    elsewhere = package / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.setenv("TMPDIR", str(elsewhere))
    with pytest.raises(HostError, match=r"loader died \(-9\)"):
        run_loader(pins)
    assert [path.name for path in pins.iterdir()] == ["headers"]
    assert list(elsewhere.iterdir()) == []


@pytest.mark.kernel
def test_pinning_where_that_cannot_be_is_one_line(pins: Path) -> None:
    """Our own programs, loaded well, and a directory that is no BPF file system."""
    message = one_line(pins)
    assert f"cannot pin the kernel programs under {pins}" in message
    assert "mount -t bpf" in message


@pytest.mark.parametrize(
    ("code", "stderr", "expected"),
    [
        (-9, "", "loader died (-9)"),
        (1, "Traceback:\n  ...\nMemoryError\n", "MemoryError"),
        (
            6,
            "noise\n/x/a.h:3:1: error: one\nb.h:4:1: error: two\nlast line\n",
            "/x/a.h:3:1: error: one | b.h:4:1: error: two | last line",
        ),
        (
            6,
            "\n".join(f"a.h:{n}:1: error: {n}" for n in range(9)) + "\nlast\n",
            "a.h:0:1: error: 0 | a.h:1:1: error: 1 | a.h:2:1: error: 2 | last",
        ),
    ],
    ids=["killed", "unforeseen", "compiler errors", "many compiler errors"],
)
def test_whatever_the_loader_says_becomes_one_line(
    monkeypatch: pytest.MonkeyPatch, pins: Path, code: int, stderr: str, expected: str
) -> None:
    """The first errors of the compiler and the last line; also for a child that was killed."""

    def fake(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        assert command[0] == sys.executable
        return subprocess.CompletedProcess(command, code, "", stderr)

    monkeypatch.setattr(programs.subprocess, "run", fake)
    assert one_line(pins) == expected


def test_without_a_bpf_file_system_nothing_is_made(tmp_path: Path) -> None:
    """One line with the mount command."""
    with pytest.raises(HostError, match=f"no BPF file system at {tmp_path}; mount -t bpf bpf {tmp_path}") as caught:
        Pins("enforcer-test", tmp_path).prepare()
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_sets_are_numbered_in_order_and_ten_comes_after_nine(tmp_path: Path) -> None:
    """The highest number is current; names that are no numbers are no sets."""
    pins = Pins("enforcer-test", tmp_path)
    assert pins.sets() == []
    assert pins.linked() == ()
    pins.links.mkdir(parents=True)
    for name in ("2", "10-abc", "9-1"):
        (pins.directory / name).mkdir()
    assert [path.name for path in pins.sets()] == ["2", "9-1", "10-abc"]
    assert pins.next_set().name == f"11-{programs.version()}"
    (pins.links / "executors").mkdir()
    (pins.links / "executors/connect4").touch()
    assert pins.linked() == ("connect4",)
    assert pins.targets() == ("executors",)
    pins.remove()
    pins.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_load_that_fails_leaves_the_sets_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The new set's directory is gone again, the old one is untouched, and the error is one of ours."""
    pins = Pins("enforcer-test", tmp_path)
    pins.links.mkdir(parents=True)
    (pins.directory / "1").mkdir()
    monkeypatch.setattr(Pins, "prepare", lambda _self: None)

    def hang(_directory: Path) -> None:
        raise subprocess.TimeoutExpired("loader", 300)

    def fail(_directory: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(programs, "run_loader", hang)
    with pytest.raises(HostError, match=r"loading the kernel programs failed: .*timed out"):
        programs.load(pins, lambda _directory: None)
    monkeypatch.setattr(programs, "run_loader", lambda _directory: None)
    with pytest.raises(HostError, match="No space left on device"):
        programs.load(pins, fail)
    assert [path.name for path in pins.sets()] == ["1"]
