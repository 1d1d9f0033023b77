"""Every error this program raises on purpose, and the exit code each one ends a command with.

    EnforcerError                1   anything below
    ├── UsageError               2   the command line asks for something that cannot be
    ├── ConfigError              3   the daemon's configuration is wrong (file, field)
    ├── PolicyError              4   a policy file is wrong (file, line, field)
    ├── TableError               5   a geography table is missing, damaged or contradictory
    ├── HostError                6   this host lacks something (root, cgroup v2, headers, bpffs)
    │   └── KernelError          6   the kernel refused a program, map or link
    ├── NotRunning               7   the supervisor does not answer on its control socket
    ├── RecordError              8   the session database cannot be read, or does not verify
    ├── Unwritable               -   a request cannot be said without what has to be masked; it alone is refused
    └── ProtocolError            -   a peer broke its protocol; ends the flow as denied, never a command
        └── LimitExceeded        -   a named limit was hit; same consequence

Each message is one line and says what to do about it: `what is wrong; what mends it`.
"""

from __future__ import annotations

from enforcer.flow import Side


class EnforcerError(Exception):
    """Base of all deliberate errors; `exit_code` is what a command ends with."""

    exit_code = 1


class UsageError(EnforcerError):
    exit_code = 2


class ConfigError(EnforcerError):
    exit_code = 3


class PolicyError(EnforcerError):
    """One or more faults in policy files; all faults found are reported at once.

    `faults` holds one line each, `file:line: field: what is wrong; what mends it`.
    """

    exit_code = 4

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


class TableError(EnforcerError):
    exit_code = 5


class HostError(EnforcerError):
    exit_code = 6


class KernelError(HostError):
    """The kernel refused something; the message names the guarantee that is missing."""


class NotRunning(EnforcerError):
    exit_code = 7


class RecordError(EnforcerError):
    exit_code = 8


class Unwritable(EnforcerError):
    """A request cannot be rewritten without a value that has to be masked. Nothing of it has gone anywhere."""


class ProtocolError(EnforcerError):
    """`side` broke the protocol in the way `reason` says (never quotes payload bytes)."""

    def __init__(self, side: Side, reason: str) -> None:
        super().__init__(f"{side.value}: {reason}")
        self.side = side
        self.reason = reason


class LimitExceeded(ProtocolError):
    """A named limit was exceeded: the flow ends as denied rather than growing without bound."""
