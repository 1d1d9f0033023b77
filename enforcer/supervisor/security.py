"""The programs on security hooks, where the kernel takes them: what they must know of the host, kept up to date, and
what is said of them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from enforcer.capture import cgroup, programs, takeover
from enforcer.capture.programs import Pins
from enforcer.capture.tables import Tables
from enforcer.capture.unix_sockets import AllowedSockets
from enforcer.errors import EnforcerError
from enforcer.log import get_logger

_log = get_logger()


class Security:
    """Made once the programs are attached. Until `settle`, what older programs judged is theirs to judge."""

    def __init__(self, pins: Pins, tables: Tables) -> None:
        self._pins = pins
        self._tables = tables
        self._paths: tuple[Path, ...] | None = None
        lacking = [
            name for name, count in programs.security(pins).items() if not (count and tables.is_security_asked())
        ]
        if lacking:
            _log.warning(
                "not every LSM program is in force; 'enforcer doctor' says what that leaves open", lacking=lacking
            )

    def recognise(self, path: Path) -> None:
        """Labels what is in the cgroup of an isolated executor that is older than these programs. Raises KernelError,
        OSError."""
        takeover.recognise(cgroup.processes(path), cgroup.cgroup_id(path), self._tables.owners, self._tables.tasks)

    def settle(self, directory: Path) -> None:
        """All has its labels: the programs of the set in `directory` judge alone from now on."""
        self._tables.settle()
        programs.finish(self._pins, directory)

    def allow(self, paths: Iterable[Path]) -> None:
        """Executors may speak to the Unix sockets at these paths, and to no others of the host."""
        wanted = tuple(paths)
        if wanted != self._paths:
            self._paths = wanted
            # Nothing to look for where no program would ask.
            self._allowed = AllowedSockets(wanted if self._tables.is_security_asked() else (), self._tables)
            self.look()

    def look(self) -> None:
        try:
            self._allowed.look()
        except (EnforcerError, OSError) as error:
            _log.error("sockets of unix_allow not found", error=str(error))

    def status(self) -> dict[str, object]:
        return {
            "asked": self._tables.is_security_asked(),
            "programs": programs.security(self._pins),
            "unix_allow": self._allowed.labelled(),
        }
