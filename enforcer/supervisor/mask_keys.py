"""The deployment's keys for masks, and the file of executors' pseudonyms, both for root alone.

Gets the state directory; hands on the keys, made at the first start, and the file as a descriptor for a worker. Keys
are one per line, the one in use first: `enforcer mask rotate` puts another before them, and those below open what they
sealed.
"""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from enforcer.errors import ConfigError, HostError
from enforcer.masking.keys import KEY_BYTES, Key, Keys

KEY_FILE, PSEUDONYMS_FILE = "mask.keys", "pseudonyms.sealed"
# Keys that stay beside the one in use: pseudonyms live for a year at most.
KEPT = 8
_MEND = "restore it, or remove it, and the next start makes another"


def read(state: Path) -> Keys:
    """The keys of `state`, made at the first call. Raises ConfigError where the file is damaged or open to others,
    HostError where it cannot be read or written."""
    path = state / KEY_FILE
    try:
        if not path.exists():
            return rotate(state)
        return _load(path)
    except OSError as error:
        raise HostError(f"{path}: cannot keep the keys of masks ({error.strerror}); check the path") from error


def rotate(state: Path) -> Keys:
    """Another key in front of those there are. Raises ConfigError, OSError."""
    path = state / KEY_FILE
    before = _load(path).keys if path.exists() else ()
    keys = Keys((Key(os.urandom(KEY_BYTES)), *before[: KEPT - 1]))
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=state, prefix=KEY_FILE)
    with os.fdopen(descriptor, "w") as stream:
        stream.write("".join(f"{line}\n" for line in keys.lines()))
        stream.flush()
        os.fsync(stream.fileno())
    Path(name).rename(path)
    return keys


def open_pseudonyms(state: Path) -> int:
    """The file of pseudonyms, opened anew: its lock is a worker's own. Raises OSError."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    return os.open(state / PSEUDONYMS_FILE, flags, 0o600)


def _load(path: Path) -> Keys:
    mode = path.stat()
    if mode.st_uid != os.geteuid() or stat.S_IMODE(mode.st_mode) & 0o077:
        raise ConfigError(f"{path} is open to others; chown root and chmod 600, and 'enforcer mask rotate'")
    try:
        keys = Keys.parse(path.read_text(encoding="ascii").splitlines())
    except (ValueError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}; {_MEND}") from error
    if not keys.keys:
        raise ConfigError(f"{path} holds no key; {_MEND}")
    return keys
