"""What a new generation does to flows that the kernel let go directly: the proxy does not see them, so they are looked
for among the sockets of attached executors, and ended there."""

from __future__ import annotations

from collections.abc import Iterable

from enforcer.capture import cgroup, takeover
from enforcer.config import OnReload
from enforcer.errors import EnforcerError
from enforcer.flow import Endpoint
from enforcer.geo.table import GeoTable
from enforcer.log import get_logger
from enforcer.policy.engine import is_host
from enforcer.supervisor.attached import Tree
from enforcer.supervisor.plan import Plan

_log = get_logger()


def end_direct_flows(trees: Iterable[Tree], plan: Plan, table: GeoTable, on_reload: OnReload) -> int:
    """Ends those that do not go direct any more, or all; how many. Not called for `keep`."""
    return sum(_end_of(tree, plan, table, on_reload) for tree in trees)


def _end_of(tree: Tree, plan: Plan, table: GeoTable, on_reload: OnReload) -> int:
    def ends(far: Endpoint) -> bool:
        if is_host(far.address):
            return False  # its own servers, or the proxy, which judges for itself
        return on_reload == "close" or not plan.goes_direct(tree.executor, table.set_id(far.address), far.port)

    try:
        return takeover.close_connections(cgroup.processes(tree.path), ends)
    except (EnforcerError, OSError) as error:
        _log.error("direct flows not looked at", executor=tree.executor.name, error=str(error))
        return 0
