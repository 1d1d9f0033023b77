"""Step 1 of 6, capture: makes an image of the text of `bpf/` with BCC: takes out of it what was compiled, to be kept,
and compares its layout with Python's mirror.

The only importer of bcc, which keeps some 150 MB of LLVM resident: used by the loader alone, a process that ends.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

from enforcer.capture import abi, headers, sysbpf
from enforcer.capture.image import Image, MapImage, renumbered
from enforcer.capture.programs import HOOKS
from enforcer.errors import HostError, KernelError

# A map of maps and the one that shows what the inner ones are like, as the text has them.
_OF_MAPS = re.compile(r'^BPF_ARRAY_OF_MAPS\((\w+), "(\w+)"', re.MULTILINE)
_QUIET = ("-Wno-macro-redefined", "-Wno-pragma-once-outside-header")


def stamp() -> str:
    """What tells this compiler, its headers, and the layout that it has to come to, from others. Raises HostError
    without headers."""
    found = importlib.util.find_spec("bcc")
    compiler = Path(found.origin) if found is not None and found.origin else None
    layout = hashlib.sha256(Path(abi.__file__).read_bytes()).hexdigest()
    return f"{compiler} {compiler.stat().st_mtime_ns if compiler else 0} {layout} {headers.stamp()}"


def compile_programs(text: str, cflags: list[str], scratch: Path) -> Image:
    """`scratch`: a directory to be made for as long as this takes.

    Raises HostError without bcc or headers, KernelError when the text does not compile or its layout is another.
    """
    try:
        import bcc  # noqa: PLC0415 - tells its absence as one line
    except ImportError as error:
        raise HostError("Python's bcc module is missing; apt-get install python3-bpfcc") from error
    try:
        scratch.mkdir()
        tree = headers.find_kernel_source(scratch)
        if tree is not None:
            os.environ["BCC_KERNEL_SOURCE"] = str(tree)
        module = _compile(bcc, text, [*cflags, *_QUIET])
    except OSError as error:
        raise KernelError(
            f"cannot lay out kernel headers in {scratch}: {error}; mount -t bpf bpf /sys/fs/bpf"
        ) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    _check_layouts(bcc, module)
    return _image(bcc, module, dict(_OF_MAPS.findall(text)))


def _compile(bcc: Any, text: str, cflags: list[str]) -> Any:
    class Module(bcc.BPF):  # type: ignore[misc]
        """BCC attaches by a function's name as soon as it has compiled: security hooks would then be in force with
        empty maps, and end with this process."""

        def _trace_autoload(self) -> None:
            pass

    try:
        return Module(text=text, cflags=cflags)
    except Exception as error:
        raise KernelError(f"the kernel programs did not compile: {error}; see the lines above") from error


def _image(bcc: Any, module: Any, inner: dict[str, str]) -> Image:
    """What BCC made, with its own maps, which end with it, named by their places."""
    lib = bcc.lib
    lib.bpf_num_tables.restype, lib.bpf_num_tables.argtypes = ctypes.c_size_t, [ctypes.c_void_p]
    lib.bpf_table_name.restype, lib.bpf_table_name.argtypes = ctypes.c_char_p, [ctypes.c_void_p, ctypes.c_size_t]
    names = [lib.bpf_table_name(module.module, index).decode() for index in range(lib.bpf_num_tables(module.module))]
    # Shapes first: maps of maps are made by them.
    names.sort(key=lambda name: (name in inner, name))
    maps, places, types = [], {}, 0
    for place, name in enumerate(names):
        fd = lib.bpf_table_fd(module.module, name.encode())
        details, (typed, key_type, value_type) = sysbpf.map_details(fd)
        maps.append(MapImage(name, *details, key_type, value_type, inner.get(name, "")))
        places[fd] = place
        types = typed or types
    programs = {hook.program: renumbered(module.dump_func(hook.program.encode()), places.__getitem__) for hook in HOOKS}
    return Image(tuple(maps), sysbpf.types_by_id(types), programs)


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
