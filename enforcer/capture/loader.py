"""Step 1 of 6, capture: compiles `bpf/`, checks its layout, loads it, pins programs and maps, and exits.

Runs as a short-lived child (`python -m enforcer.capture.loader DIRECTORY`) because BCC keeps some 150 MB of LLVM
resident.
The only importer of bcc. Attaches nothing: the supervisor fills the maps first and then switches the links.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from enforcer.capture import abi, btf, events, sysbpf
from enforcer.capture.headers import find_kernel_source
from enforcer.capture.programs import HOOKS, MAPS, Hook, Where
from enforcer.capture.source import flatten, source_directory
from enforcer.errors import EnforcerError, HostError, KernelError


def load(directory: Path) -> None:
    """Pins every program of HOOKS as `directory/prog_NAME` and every map of MAPS as `directory/map_NAME`. What goes on
    security hooks is left out where the kernel does not take it.

    Raises HostError without bcc or headers, KernelError when compiling, loading or pinning fails.
    """
    try:
        import bcc  # noqa: PLC0415 - tells its absence as one line
    except ImportError as error:
        raise HostError("Python's bcc module is missing; apt-get install python3-bpfcc") from error
    events.check_tracefs()
    text = flatten(source_directory())
    # In the set's own directory: whoever ends this process midway also sees to the set that it leaves.
    scratch = directory / "headers"
    try:
        scratch.mkdir()
        tree = find_kernel_source(scratch)
        if tree is not None:
            os.environ["BCC_KERNEL_SOURCE"] = str(tree)
        module = _compile(bcc, text)
    except OSError as error:
        raise KernelError(
            f"cannot lay out kernel headers under {directory}: {error}; mount -t bpf bpf /sys/fs/bpf"
        ) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    _check_layouts(bcc, module)
    functions = {hook.program: function for hook in HOOKS if (function := _load_program(module, hook)) is not None}
    for program, function in functions.items():
        _pin(function.fd, directory / f"prog_{program}")
    for name in MAPS:
        _pin(_map_fd(bcc, module, name), directory / f"map_{name}")


def _compile(bcc: Any, text: str) -> Any:
    cflags = [*_places(), "-Wno-macro-redefined", "-Wno-pragma-once-outside-header"]
    try:
        return _module_class(bcc)(text=text, cflags=cflags)
    except Exception as error:
        raise KernelError(f"the kernel programs did not compile: {error}; see the lines above") from error


def _places() -> list[str]:
    """Where the running kernel has what security hooks read. One that does not say takes no such hooks."""
    try:
        leader = btf.member_offset(btf.BTF.read_bytes(), b"task_struct", b"group_leader")
    except OSError:
        leader = 8
    return [f"-DTASK_GROUP_LEADER={leader}"]


def _module_class(bcc: Any) -> Any:
    """BCC attaches by a function's name as soon as it has compiled: security hooks would then be in force with empty
    maps, and end with this process."""

    class Module(bcc.BPF):  # type: ignore[misc]
        def _trace_autoload(self) -> None:
            pass

    return Module


def _load_program(module: Any, hook: Hook) -> Any:
    """The loaded function; None for a security hook that this kernel does not take."""
    attach_type = -1 if hook.attach_type is None else int(hook.attach_type)
    try:
        return module.load_func(hook.program, int(hook.program_type), attach_type=attach_type)
    except Exception as error:
        if hook.where is Where.LSM:
            return None
        raise KernelError(f"the kernel refused program {hook.program}: {error}") from error


def _pin(fd: int, path: Path) -> None:
    try:
        sysbpf.pin(fd, path)
    except OSError as error:
        raise KernelError(
            f"cannot pin the kernel programs under {path.parent}: {error}; mount -t bpf bpf /sys/fs/bpf, and be root"
        ) from error


def _map_fd(bcc: Any, module: Any, name: str) -> int:
    fd = bcc.lib.bpf_table_fd(module.module, name.encode())
    if fd < 0:
        raise KernelError(f"map {name} is not in the compiled program; reinstall the package")
    return int(fd)


def _check_layouts(bcc: Any, module: Any) -> None:
    lib = bcc.lib
    for layouts, describe in (
        (abi.KEY_LAYOUTS, lib.bpf_table_key_desc),
        (abi.VALUE_LAYOUTS, lib.bpf_table_leaf_desc),
    ):
        for name, mirror in layouts.items():
            description = describe(module.module, name.encode())
            if description is None:
                raise KernelError(f"map {name} is not in the compiled program; reinstall the package")
            compiled = bcc.BPF._decode_table_type(json.loads(description))
            abi.check_layout(f"{name} ({mirror.__name__})", mirror, compiled)


def main() -> int:
    try:
        load(Path(sys.argv[1]))
    except EnforcerError as error:
        print(error, file=sys.stderr)  # noqa: T201 - read by the parent as the one error line
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
