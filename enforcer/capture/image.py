"""Step 1 of 6, capture: kernel programs as they were compiled: what is kept, and loaded again without a compiler.

Compiling takes seconds, loading tenths. An image holds what bpf(2) asks for: maps, their types, and instructions that
name maps by number. The kernel's verifier judges it at every load as if it had just been compiled.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import stat
import struct
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from fcntl import LOCK_EX, flock
from pathlib import Path

from enforcer.capture import sysbpf
from enforcer.capture.sysbpf import AttachType, ProgramType

# Images kept; the least recently used go first. One is some 150 KB; each version of ours and of the kernel has its own.
KEPT = 4
_SUFFIX = ".image"
# struct bpf_insn: code, registers, offset, immediate; and the code of an address to load, whose source says of what.
_INSTRUCTION = struct.Struct("=BBhi")
_LOAD_ADDRESS, _OF_MAP = 0x18, 1


@dataclass(frozen=True, slots=True)
class MapImage:
    """A map as it was made. `key_type`, `value_type`: ids in the image's types, 0 for none. `inner`: of a map of maps,
    the name of the one that shows what the inner ones are like."""

    name: str
    kind: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int
    key_type: int
    value_type: int
    inner: str


@dataclass(frozen=True, slots=True)
class Image:
    """`maps` in an order in which they can be made; `types` is BTF; in `programs`, the address of a map is its place in
    `maps`."""

    maps: tuple[MapImage, ...]
    types: bytes
    programs: Mapping[str, bytes]

    def make_maps(self, stack: ExitStack) -> dict[str, int]:
        """Makes every map; the descriptors by name, closed with `stack`. Raises OSError."""
        types = sysbpf.types_load(self.types)
        stack.callback(os.close, types)
        made: dict[str, int] = {}
        for one in self.maps:
            typed = (types, one.key_type, one.value_type) if one.key_type or one.value_type else (0, 0, 0)
            made[one.name] = sysbpf.map_create(
                one.kind,
                key_size=one.key_size,
                value_size=one.value_size,
                max_entries=one.max_entries,
                flags=one.flags,
                inner=made[one.inner] if one.inner else 0,
                name=one.name,
                types=typed,
            )
            stack.callback(os.close, made[one.name])
        return made

    def load_program(
        self, name: str, maps: Mapping[str, int], kind: ProgramType, attach_type: AttachType | None, hook: int = 0
    ) -> int:
        """The descriptor of a program over `maps`; `hook`: the kernel's function that a security program is asked at.
        Raises OSError with the verifier's reason."""
        numbers = [maps[one.name] for one in self.maps]
        code = renumbered(self.programs[name], numbers.__getitem__)
        return sysbpf.program_load(kind, code, name=name, attach_type=attach_type, hook=hook)

    def pack(self) -> bytes:
        """For a file. The first line is the checksum of the rest."""
        body = {
            "maps": [asdict(one) for one in self.maps],
            "types": base64.b64encode(self.types).decode(),
            "programs": {name: base64.b64encode(code).decode() for name, code in self.programs.items()},
        }
        text = json.dumps(body).encode()
        return hashlib.sha256(text).hexdigest().encode() + b"\n" + text

    @classmethod
    def unpack(cls, data: bytes) -> Image:
        """The image in a file. Raises ValueError when it is damaged."""
        checksum, _, text = data.partition(b"\n")
        if hashlib.sha256(text).hexdigest().encode() != checksum:
            raise ValueError("the checksum is another's")
        body = json.loads(text)
        return cls(
            tuple(MapImage(**one) for one in body["maps"]),
            base64.b64decode(body["types"]),
            {name: base64.b64decode(code) for name, code in body["programs"].items()},
        )


def renumbered(code: bytes, number: Callable[[int], int]) -> bytes:
    """Instructions in which every address of a map is what `number` makes of it."""
    changed = bytearray(code)
    position = 0
    while position < len(code):
        operation, registers, offset, value = _INSTRUCTION.unpack_from(code, position)
        if operation == _LOAD_ADDRESS:
            if registers >> 4 == _OF_MAP:
                _INSTRUCTION.pack_into(changed, position, operation, registers, offset, number(value))
            position += _INSTRUCTION.size  # its second half
        position += _INSTRUCTION.size
    return bytes(changed)


class Images:
    """The images kept in a directory that only root may write, each named by what it was made of. One that is damaged,
    or that others could have written, is none."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Nobody else compiles meanwhile: who waited finds what the other one made. Where nothing can be kept, nobody
        waits."""
        with ExitStack() as stack:
            with suppress(OSError):
                self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                lock = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                stack.callback(os.close, lock)
                flock(lock, LOCK_EX)
            yield

    def get(self, key: str) -> Image | None:
        path = self._path(key)
        try:
            for place in (self._directory, path):
                _check_roots(place)
            image = Image.unpack(path.read_bytes())
            os.utime(path)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return image

    def put(self, key: str, image: Image) -> None:
        """Keeps an image. Where that cannot be, the next start compiles as well."""
        with suppress(OSError):
            _check_roots(self._directory)
            with tempfile.NamedTemporaryFile(dir=self._directory, delete=False) as file:
                aside = Path(file.name)
                try:
                    file.write(image.pack())
                    file.flush()
                    os.fsync(file.fileno())
                    aside.rename(self._path(key))
                except BaseException:
                    aside.unlink()
                    raise
            self._prune()

    def _path(self, key: str) -> Path:
        return self._directory / f"{key[:32]}{_SUFFIX}"

    def _prune(self) -> None:
        kept = sorted(self._directory.glob(f"*{_SUFFIX}"), key=lambda path: path.stat().st_mtime, reverse=True)
        for path in kept[KEPT:]:
            path.unlink()


def _check_roots(path: Path) -> None:
    """Raises PermissionError when somebody else could have written there."""
    status = path.lstat()
    if status.st_uid != 0 or stat.S_ISLNK(status.st_mode) or status.st_mode & 0o022:
        raise PermissionError(f"{path} is not root's alone")
