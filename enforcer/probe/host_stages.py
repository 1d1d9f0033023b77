"""Stages that show parts of the host or of the enforcer to a technique, and look afterwards whether it got at them.

What a control changes is put back at once: a file's text, a kernel setting, a device.
"""

from __future__ import annotations

import ctypes
import gzip
import lzma
import os
import random
import signal
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from enforcer.capture import cgroup, sysbpf
from enforcer.capture.programs import BPF_MOUNT
from enforcer.config import load_settings
from enforcer.errors import HostError
from enforcer.probe.sight import QUIET
from enforcer.probe.stages import STAGES, Props, Scene, Unprepared

# Modules that do nothing by being loaded; one that is not there yet is chosen.
_HARMLESS_MODULES = ("dummy", "ifb", "nlmon", "vcan")
_OPENERS: dict[str, Callable[[bytes], bytes]] = {".ko": bytes, ".xz": lzma.decompress, ".gz": gzip.decompress}
# A map that is pinned in every version, whose entries are small.
_MAP = "map_listener_by_place"
# struct bpf_map_info: type, id, key size, value size
_MAP_INFO = "=4I"
_DISK_SIZE = 1 << 20
# Seconds that a killed process may take to be gone.
_ENDS = 1.0
# Seconds between reloads, and the most between a start of the supervisor and its death.
_RELOAD_EVERY, _LIVES = 0.05, 0.5


@contextmanager
def _cgroup(scene: Scene) -> Iterator[Props]:
    """A cgroup outside every executor, and names for more."""
    mount = cgroup.find_mount()
    group = mount / f"{scene.ground.mark}-outside"
    group.mkdir()
    try:
        yield Props({"mount": str(mount), "cgroup": str(group), "child": f"{scene.ground.mark}-child"}, quiet=QUIET)
    finally:
        cgroup.remove(group)


@contextmanager
def _host_file(scene: Scene) -> Iterator[Props]:
    """New files in directories from which the host runs things; a comment line harms none of their readers."""
    name = f"{scene.ground.mark}-probe"
    places = (Path("/etc/cron.d", name), Path("/etc/systemd/system", f"{name}.service"))
    files = [path for path in places if path.parent.is_dir()]
    if not files:
        raise Unprepared("a directory such as /etc/cron.d")
    try:
        yield Props({"files": [str(path) for path in files]}, reached=lambda: any(map(_exists_now(scene), files)))
    finally:
        for path in files:
            path.unlink(missing_ok=True)


def _exists_now(scene: Scene) -> Callable[[Path], bool]:
    return lambda path: path.is_file() and scene.token in path.read_text()


def _setting(name: str) -> Callable[[Scene], Iterator[Props]]:
    """A kernel setting, put back as soon as somebody changed it."""
    path = Path(name)

    def stage(scene: Scene) -> Iterator[Props]:
        if not path.exists():
            raise Unprepared(f"{path}, which this kernel does not have")
        before = path.read_text().strip()

        def changed() -> bool:
            found = scene.token in path.read_text()
            if found:
                path.write_text(f"{before}\n")
            return found

        try:
            yield Props(reached=changed)
        finally:
            if path.read_text().strip() != before:
                path.write_text(f"{before}\n")

    return stage


def _kernel_log(expected: str) -> Callable[[Scene], Iterator[Props]]:
    """The kernel's log, read from now on for what the technique should leave there."""

    def stage(scene: Scene) -> Iterator[Props]:
        log = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
        try:
            os.lseek(log, 0, os.SEEK_END)
            yield Props(reached=lambda: (expected or scene.token) in _read_log(log))
        finally:
            os.close(log)

    return stage


def _read_log(log: int) -> str:
    text = b""
    with suppress(BlockingIOError):
        while True:
            text += os.read(log, 8192)
    return text.decode(errors="replace")


@contextmanager
def _disk(scene: Scene) -> Iterator[Props]:
    """A disk of the host: a loop device on a file of ours."""
    image = scene.ground.world.directory / f"disk-{scene.port}"
    image.write_bytes(bytes(_DISK_SIZE))
    try:
        done = subprocess.run(["losetup", "--find", "--show", str(image)], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise Unprepared("the program 'losetup'") from None
    if done.returncode != 0:
        raise Unprepared(f"a loop device: {done.stderr.strip()}")
    device = done.stdout.strip()
    try:
        number = Path(device).stat().st_rdev
        values = {"device": (os.major(number), os.minor(number))}
        yield Props(values, reached=lambda: scene.token.encode() in image.read_bytes())
    finally:
        subprocess.run(["losetup", "--detach", device], capture_output=True, check=False)


@contextmanager
def _module(_scene: Scene) -> Iterator[Props]:
    """A harmless module that is not loaded; taken out again."""
    loaded, files = _modules(), _module_files()
    for name in _HARMLESS_MODULES:
        if name not in loaded and name in files and files[name].suffix in _OPENERS:
            break
    else:
        raise Unprepared("a harmless module for this kernel that is not loaded yet")
    module = _OPENERS[files[name].suffix](files[name].read_bytes())
    try:
        yield Props({"module": module.hex()}, reached=lambda: name in _modules())
    finally:
        if name in _modules():
            subprocess.run(["rmmod", name], capture_output=True, check=False)


def _module_files() -> dict[str, Path]:
    """Where this kernel's modules are, by name, as depmod has written it down."""
    directory = Path("/lib/modules", os.uname().release)
    listed = directory / "modules.dep"
    if not listed.is_file():
        return {}
    paths = (directory / line.partition(":")[0] for line in listed.read_text().splitlines())
    return {path.name.partition(".")[0]: path for path in paths}


def _modules() -> set[str]:
    path = Path("/proc/modules")
    return {line.split()[0] for line in path.read_text().splitlines()} if path.exists() else set()


def _pins(scene: Scene) -> Path:
    return BPF_MOUNT / load_settings(scene.ground.instance.root).instance


def _information(path: Path) -> bytes:
    """What the kernel says of a pinned object; empty when it is gone."""
    buffer = ctypes.create_string_buffer(sysbpf.INFO_SIZE)
    try:
        descriptor = sysbpf.get_pinned(path)
    except OSError:
        return b""
    try:
        asked = struct.pack("=IIQ", descriptor, sysbpf.INFO_SIZE, ctypes.addressof(buffer))
        sysbpf.bpf(sysbpf.Command.OBJ_GET_INFO_BY_FD, asked)
        return buffer.raw
    finally:
        os.close(descriptor)


@contextmanager
def _pinned(scene: Scene) -> Iterator[Props]:
    """Every program, map and link that is pinned."""
    directory = _pins(scene)
    before = {path: _information(path) for path in directory.rglob("*") if path.is_file()}

    def changed() -> bool:
        return any(_information(path) != known for path, known in before.items())

    yield Props({"pins": str(directory)}, reached=changed)


@contextmanager
def _map(scene: Scene) -> Iterator[Props]:
    """A pinned map, and a key that nobody else uses."""
    path = next(_pins(scene).rglob(_MAP), None)
    if path is None:
        raise HostError(f"{_MAP} is not pinned; the enforcer under test is not the one this probe belongs to")
    _kind, _ident, key_size, value_size = struct.unpack_from(_MAP_INFO, _information(path))
    key = scene.token.encode().ljust(key_size, b"\0")[:key_size]

    yield Props({"map": str(path), "key": key.hex(), "value_size": value_size}, reached=lambda: _taken(path, key))


def _taken(path: Path, key: bytes) -> bool:
    """Is there an entry of that key? It is taken out again."""
    wanted = ctypes.create_string_buffer(key, len(key))
    descriptor = sysbpf.get_pinned(path)
    try:
        sysbpf.bpf(sysbpf.Command.MAP_DELETE_ELEM, struct.pack("=I4xQ", descriptor, ctypes.addressof(wanted)))
    except FileNotFoundError:
        return False
    finally:
        os.close(descriptor)
    return True


@contextmanager
def _supervisor(scene: Scene) -> Iterator[Props]:
    """The supervisor's process and control socket."""
    instance = scene.ground.instance
    pid = instance.pid

    def ended() -> bool:
        deadline = time.monotonic() + _ENDS
        while time.monotonic() < deadline:
            if not instance.alive() or psutil.Process(pid).status() == psutil.STATUS_STOPPED:
                return True
            time.sleep(0.01)
        return False

    try:
        values = {"supervisor": pid, "control_socket": str(load_settings(instance.root).control_socket)}
        yield Props(values, reached=ended)
    finally:
        if instance.alive():
            os.kill(pid, signal.SIGCONT)


@contextmanager
def _control_socket(scene: Scene) -> Iterator[Props]:
    """The control socket. Only who asked knows whether it answered."""
    yield Props({"control_socket": str(load_settings(scene.ground.instance.root).control_socket)}, believed=True)


@contextmanager
def _workers(scene: Scene) -> Iterator[Props]:
    """The proxy's processes."""
    workers = psutil.Process(scene.ground.instance.pid).children()
    values = {"workers": [worker.pid for worker in workers]}
    yield Props(values, reached=lambda: len(psutil.wait_procs(workers, timeout=_ENDS)[0]) > 0)


@contextmanager
def _policy(scene: Scene) -> Iterator[Props]:
    """The policy in force."""
    path = scene.ground.instance.root / "etc/enforcer/policies/probe.yaml"
    before = path.read_text()
    try:
        yield Props({"policy": str(path)}, reached=lambda: scene.token in path.read_text())
    finally:
        path.write_text(before)


@contextmanager
def _meanwhile(act: Callable[[threading.Event], None], *, inside: bool) -> Iterator[None]:
    """Keeps calling `act` on a thread while an executor is at work. Raises what it raised."""
    over, failures = threading.Event(), list[Exception]()

    def loop() -> None:
        try:
            while not over.is_set():
                act(over)
        except (HostError, OSError) as error:
            failures.append(error)

    thread = threading.Thread(target=loop)
    if inside:
        thread.start()
    try:
        yield
    finally:
        over.set()
        if inside:
            thread.join()
    if failures:
        raise failures[0]


@contextmanager
def _reloads(scene: Scene) -> Iterator[Props]:
    """The supervisor reloads its policy without a pause."""

    def reload(over: threading.Event) -> None:
        os.kill(scene.ground.instance.pid, signal.SIGHUP)
        over.wait(_RELOAD_EVERY)

    with _meanwhile(reload, inside=scene.inside):
        yield Props()


@contextmanager
def _restarts(scene: Scene) -> Iterator[Props]:
    """The supervisor is killed at random moments, and started again."""
    instance, moment = scene.ground.instance, random.Random(scene.token)  # noqa: S311 - any moment will do

    def kill(over: threading.Event) -> None:
        over.wait(moment.uniform(0, _LIVES))
        instance.kill()
        instance.start()

    with _meanwhile(kill, inside=scene.inside):
        yield Props()


STAGES.update(
    {
        "cgroup": _cgroup,
        "control-socket": _control_socket,
        "core-pattern": contextmanager(_setting("/proc/sys/kernel/core_pattern")),
        "disk": _disk,
        "host-file": _host_file,
        "kernel-log": contextmanager(_kernel_log("")),
        "map": _map,
        "modprobe": contextmanager(_setting("/proc/sys/kernel/modprobe")),
        "module": _module,
        "pins": _pinned,
        "policy": _policy,
        "reloads": _reloads,
        "restarts": _restarts,
        "supervisor": _supervisor,
        "sysrq": contextmanager(_kernel_log("sysrq: HELP")),
        "uevent": contextmanager(_setting("/sys/kernel/uevent_helper")),
        "worker": _workers,
    }
)
