"""Step 1 of 6, capture: loads the programs of `bpf/`, pins programs and maps, and exits.

Runs as a short-lived child (`python -m enforcer.capture.loader DIRECTORY`), because it compiles them where no image of
just these programs, for this kernel, is kept. Attaches nothing: the supervisor fills the maps first and then switches
the links.
"""

from __future__ import annotations

import hashlib
import os
import sys
from contextlib import ExitStack
from pathlib import Path

from enforcer.capture import btf, compiler, events, sysbpf
from enforcer.capture.image import Image, Images
from enforcer.capture.programs import HOOKS, MAPS, Hook, Where
from enforcer.capture.source import flatten, source_directory
from enforcer.capture.sysbpf import AttachType
from enforcer.errors import EnforcerError, KernelError

# What was compiled is the host's, whatever instances it has.
IMAGES = Path("/var/cache/enforcer/programs")


def load(directory: Path, images: Path = IMAGES) -> None:
    """Pins every program of HOOKS as `directory/prog_NAME` and every map of MAPS as `directory/map_NAME`. What goes on
    security hooks is left out where the kernel does not take it.

    Raises HostError without bcc or headers, KernelError when compiling, loading or pinning fails.
    """
    events.check_tracefs()
    text = flatten(source_directory())
    types = _types()
    cflags = _places(types)
    parts = [text, *cflags, *os.uname(), compiler.stamp()]
    key, kept = hashlib.sha256("\0".join(parts).encode()).hexdigest(), Images(images)
    image = kept.get(key)
    if image is not None:
        _load(image, types, directory)
        return
    with kept.alone():
        image = kept.get(key)
        if image is None:
            # In the set's own directory: whoever ends this process midway also sees to the set that it leaves.
            image = compiler.compile_programs(text, cflags, directory / "headers")
            _load(image, types, directory)
            kept.put(key, image)
            return
    _load(image, types, directory)


def _types() -> bytes:
    """What the running kernel says of its own types. One that does not say takes no security hooks."""
    try:
        return btf.BTF.read_bytes()
    except OSError:
        return b""


def _places(types: bytes) -> list[str]:
    """Where the running kernel has what security hooks read; anywhere where it takes no such hooks."""
    leader = btf.member_offset(types, b"task_struct", b"group_leader") if types else 8
    return [f"-DTASK_GROUP_LEADER={leader}"]


def _load(image: Image, types: bytes, directory: Path) -> None:
    functions = {hook: f"bpf_{hook.program.replace('__', '_')}".encode() for hook in HOOKS if hook.where is Where.LSM}
    known = btf.function_ids(types, functions.values()) if types else {}
    with ExitStack() as stack:
        try:
            maps = image.make_maps(stack)
        except OSError as error:
            raise KernelError(f"the kernel refused the maps of its programs: {error}; free memory") from error
        programs = {}
        for hook in HOOKS:
            program = _load_program(image, maps, hook, known.get(functions.get(hook, b""), 0))
            if program is not None:
                stack.callback(os.close, program)
                programs[hook.program] = program
        for name, program in programs.items():
            _pin(program, directory / f"prog_{name}")
        for name in MAPS:
            if name not in maps:
                raise KernelError(f"map {name} is not in the compiled program; reinstall the package")
            _pin(maps[name], directory / f"map_{name}")


def _load_program(image: Image, maps: dict[str, int], hook: Hook, function: int) -> int | None:
    """The loaded program; None for a security hook that this kernel does not take."""
    try:
        if hook.where is not Where.LSM:
            return image.load_program(hook.program, maps, hook.program_type, hook.attach_type)
        if function:
            return image.load_program(hook.program, maps, hook.program_type, AttachType.LSM_MAC, function)
    except OSError as error:
        if hook.where is not Where.LSM:
            raise KernelError(f"the kernel refused program {hook.program}: {error}") from error
    return None


def _pin(fd: int, path: Path) -> None:
    try:
        sysbpf.pin(fd, path)
    except OSError as error:
        raise KernelError(
            f"cannot pin the kernel programs under {path.parent}: {error}; mount -t bpf bpf /sys/fs/bpf, and be root"
        ) from error


def main() -> int:
    try:
        load(Path(sys.argv[1]))
    except EnforcerError as error:
        print(error, file=sys.stderr)  # noqa: T201 - read by the parent as the one error line
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
