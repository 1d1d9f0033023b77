"""Checks of what the enforcer keeps on this host: its configuration, its account, its records, its clock."""

from __future__ import annotations

import ctypes
import os
import shutil
import stat
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from enforcer import privileges
from enforcer.capture.namespace import run_inside
from enforcer.doctor.checks import CannotTell, Outcome, Place, absent, missing, ok
from enforcer.doctor.children import libc
from enforcer.doctor.stage import new_namespace
from enforcer.doctor.users import powerful_groups
from enforcer.geo.inventory import stale_tables
from enforcer.geo.table import GeoTable
from enforcer.masking import engine
from enforcer.supervisor.generation import geo_store, table_path, vocabulary
from enforcer.supervisor.home import faults

_PORT_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
# Room for some million recorded requests; below it a full disk, which denies everything, is near.
_FREE_BYTES = 1 << 30
# mount(8) types whose files are on another machine. SQLite's locks and fsync(2) prove nothing there.
_REMOTE = frozenset(
    ["nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "virtiofs", "ceph", "glusterfs", "lustre", "afs", "gfs2", "ocfs2",
     "beegfs", "fuse.sshfs", "fuse.glusterfs", "fuse.s3fs", "fuse.rclone", "davfs"]
)  # fmt: skip
_VOLATILE = frozenset(["tmpfs", "ramfs", "overlay"])
# adjtimex(2)
_TIMEX_BYTES, _TIME_ERROR = 208, 5
# The clock of a host whose battery died starts in 1970; this was written later than that.
_EARLIEST = 1_700_000_000


def configuration(place: Place) -> Outcome:
    if place.settings_fault:
        return missing(
            f"{place.settings_fault.splitlines()[0].partition('; ')[0]}; defaults were checked instead",
            "see 'enforcer policy check', or 'make install' on a new host",
        )
    return ok(f"{place.settings.etc / 'enforcer.yaml'} is valid")


def listener_port(place: Place) -> Outcome:
    """In the host's namespace and in a new one, as each executor has."""
    port = place.settings.listener_port
    namespace = new_namespace()
    try:
        ranges = {_PORT_RANGE.read_text(), run_inside(namespace, _PORT_RANGE.read_text)}
    finally:
        os.close(namespace)
    for text in ranges:
        low, high = map(int, text.split())
        if low <= port <= high:
            return missing(
                f"port {port} is one that the kernel gives to clients ({low} to {high})",
                f"set listener_port outside {low} to {high} in enforcer.yaml",
            )
    return ok(f"port {port} is never given to a client")


def workers_account(place: Place) -> Outcome:
    account = privileges.find_user(place.settings.user)
    if account.pw_uid == 0:
        return missing("workers would run as root", "name an account of their own as user: in enforcer.yaml")
    if groups := powerful_groups(account):
        return missing(
            f"{account.pw_name} is in group {', '.join(groups)}", f"gpasswd --delete {account.pw_name} {groups[0]}"
        )
    return ok(f"{account.pw_name} (uid {account.pw_uid}) is no root and in no group that lends it root")


def record_mask(place: Place) -> Outcome:
    if not place.settings.record_mask:
        return missing("record_mask is empty: texts are recorded as they are", "set record_mask in enforcer.yaml")
    how = "" if engine.name() == engine.HYPERSCAN else f", by {engine.RE2}, several times slower than Hyperscan"
    return ok(f"recorded texts are searched for {', '.join(place.settings.record_mask)}{how}")


def home(place: Place) -> Outcome:
    settings = place.settings
    if not settings.home.regions:
        return absent("no home.regions are set: where this host is was not looked at")
    found = faults(settings, GeoTable.open(table_path(settings)), vocabulary(settings).regions)
    if found:
        return missing(found[0], "correct home in enforcer.yaml, or the tables: see 'enforcer geo lookup ADDRESS'")
    return ok(f"this host's addresses and records are in {', '.join(settings.home.regions)}")


def state_private(place: Place) -> Outcome:
    state = place.settings.state
    if not state.exists():
        return absent(f"{state} does not exist yet; it will be made for root alone")
    for path in (state, *state.glob("*.db*")):
        details = path.stat()
        if details.st_uid != 0 or stat.S_IMODE(details.st_mode) & 0o077:
            mode = "0700" if path.is_dir() else "0600"
            return missing(
                f"{path} is open to others ({stat.filemode(details.st_mode)}, uid {details.st_uid})",
                f"chown root {path} && chmod {mode} {path}",
            )
    return ok(f"{state} is root's alone")


def state_storage(place: Place) -> Outcome:
    """A file without a name is written there and synced, on a file system of this host with room."""
    directory = _existing(place.settings.state)
    kind = _file_system(directory)
    if kind in _REMOTE:
        return missing(f"{directory} is on {kind}: another machine's disk", "mount a local file system there")
    free = shutil.disk_usage(directory).free
    if free < _FREE_BYTES:
        return missing(f"{directory} has {free / 1e9:.1f} GB left; a full disk denies every request", "make room")
    try:
        with tempfile.TemporaryFile(dir=directory) as stream:
            stream.write(b"doctor")
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        return missing(f"no file can be written in {directory}: {error.strerror}", "mount a writable file system there")
    if kind in _VOLATILE:
        return missing(f"{directory} is on {kind}, and may not outlive a restart", "mount a disk there")
    return ok(f"{directory} is on {kind}, {free / 1e9:.0f} GB free; a write was synced")


def _existing(path: Path) -> Path:
    return next(one for one in (path, *path.parents) if one.is_dir())


def _file_system(path: Path) -> str:
    """The type of the mount that holds `path`, the last one on its mount point. See proc_pid_mountinfo(5)."""
    real = path.resolve()
    best, kind = -1, ""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        place = Path(before.split(" ")[4].encode().decode("unicode_escape"))
        if real.is_relative_to(place) and len(place.parts) >= best:
            best, kind = len(place.parts), after.split(" ")[0]
    return kind


def region_tables(place: Place) -> Outcome:
    """Every table that the settings name was imported, is as it was imported, and is not too old."""
    settings = place.settings
    if not settings.geo.sources:
        return absent("geo.sources names no table")
    lines = stale_tables(geo_store(settings), settings.geo, datetime.now(UTC).date())
    if lines:
        return missing(lines[0].partition(";")[0], "enforcer geo update")
    return ok(f"{len(settings.geo.sources)} imported, none older than {settings.geo.stale_days} days")


def swap(_place: Place) -> Outcome:
    devices = [Path(line.split()[0]) for line in Path("/proc/swaps").read_text().splitlines()[1:]]
    plain = [str(device) for device in devices if not _is_memory_or_encrypted(device)]
    if plain:
        return missing(
            f"memory with unmasked texts may be written to {', '.join(plain)}", "swapoff, or encrypt the swap space"
        )
    return ok("memory is not written to a disk in clear")


def _is_memory_or_encrypted(device: Path) -> bool:
    """Compressed memory, or a device mapping made by dm-crypt: its identifier says so."""
    name = device.resolve().name
    try:
        return name.startswith("zram") or Path(f"/sys/class/block/{name}/dm/uuid").read_text().startswith("CRYPT-")
    except OSError:
        return False


def clock(_place: Place) -> Outcome:
    buffer = ctypes.create_string_buffer(_TIMEX_BYTES)
    state = libc.adjtimex(buffer)
    if state < 0:
        raise CannotTell("adjtimex(2) does not say whether the clock is synchronised")
    boot, monotonic = time.clock_gettime(time.CLOCK_BOOTTIME), time.monotonic()
    if time.time() < _EARLIEST:
        return missing(f"the clock says {time.strftime('%Y-%m-%d', time.gmtime())}", "set the clock: timedatectl")
    if boot + 1 < monotonic:
        return missing("the time since boot runs behind the monotonic clock", "report it with uname -r")
    if state == _TIME_ERROR:
        return missing(
            "nothing keeps the clock synchronised: recorded times are this host's word", "apt-get install chrony"
        )
    return ok("the clock is synchronised, and the time since boot counts on")
