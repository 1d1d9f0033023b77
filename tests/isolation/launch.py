"""What `enforcer exec` does, without a supervisor: `python -m tests.isolation.launch CGROUP OPTIONS COMMAND...`.

OPTIONS is JSON: `user`, and the fields of View and Filter that differ from their defaults.
"""

from __future__ import annotations

import json
import os
import pwd
import sys
from pathlib import Path

from enforcer.errors import EnforcerError
from enforcer.isolation import descriptors
from enforcer.isolation.filesystem import View
from enforcer.isolation.start import Command, Isolation
from enforcer.isolation.syscalls import Filter
from enforcer.isolation.terminal import Terminal, path_of_terminal


def main() -> int:
    cgroup, options, *command = sys.argv[1:]
    chosen = json.loads(options)
    account = pwd.getpwnam(chosen.get("user", "nobody"))
    paths = {name: tuple(map(Path, chosen.get(name, ()))) for name in ("hidden", "exposed", "writable")}
    descriptors.check_standard()
    view = View(terminal=path_of_terminal(), read_only=account.pw_uid == 0, **paths)
    terminal = Terminal()
    with Isolation(Path(cgroup), view, Filter(unix_sockets=chosen.get("unix_sockets", False))) as isolation:
        groups = tuple(os.getgrouplist(account.pw_name, account.pw_gid))
        directory = chosen.get("directory") or str(Path.cwd())
        code = isolation.run(
            Command(tuple(command), dict(os.environ), directory, account.pw_uid, account.pw_gid, groups), terminal
        )
    terminal.take_back(code)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    try:
        sys.exit(main())
    except EnforcerError as fault:
        sys.stderr.write(f"enforcer: {fault}\n")
        sys.exit(fault.exit_code)
