"""Every check, in the order in which they are made, and which promise rests on it in which mode."""

from __future__ import annotations

from enforcer.doctor import host, isolation, kernel, running, users
from enforcer.doctor.checks import Check, pairs

# Without these nothing is captured, and then nothing is judged, refused or recorded.
_CAPTURE = pairs("P1 P2 P3 P5 P8")
_REFUSE = pairs("P1 P2 P3")
_ISOLATED, _ATTACHED = pairs("P1:isolated P2:isolated P3:isolated"), pairs("P1:attached P2:attached P3:attached")

CHECKS = (
    Check("capabilities", kernel.capabilities, "root lacks capabilities", needs=_CAPTURE),
    Check("kernel", kernel.kernel_version, "the kernel is too old", needs=_CAPTURE),
    Check("BTF", kernel.btf, "the kernel has no BTF", narrows=_ATTACHED),
    Check("headers", kernel.headers, "no kernel headers", needs=_CAPTURE),
    Check("cgroup v2", kernel.cgroup_v2, "no cgroup v2", needs=_CAPTURE),
    Check("bpffs", kernel.bpf_file_system, "nothing can be pinned", needs=_CAPTURE),
    Check("load", kernel.load, "the kernel does not take the programs", needs=_CAPTURE),
    Check("attach", kernel.attach, "the programs do not attach", needs=_CAPTURE),
    Check("TCP", kernel.connects, "TCP leaves", needs=_REFUSE),
    Check("UDP", kernel.datagrams, "UDP leaves", needs=_ATTACHED),
    Check("ICMP", kernel.pings, "ICMP leaves", needs=_ATTACHED),
    Check("raw sockets", kernel.raws, "raw IP sockets send", narrows=_ATTACHED),
    Check("uplinks", kernel.uplinks, "frames are not stopped at the interfaces", narrows=_ATTACHED),
    Check("redirect", kernel.redirect, "the proxy does not learn destinations", needs=pairs("P2 P5 P6 P8")),
    Check("BPF LSM", kernel.bpf_lsm, "no LSM programs", narrows=_ATTACHED),
    Check("netns cookie", kernel.namespace_cookie, "namespaces are not told apart", needs=_REFUSE),
    Check("sock_diag", kernel.socket_destroy, "connections from before stay open", narrows=_ATTACHED),
    Check("empty netns", isolation.empty_namespace, "an empty namespace is not closed", needs=_ISOLATED),
    Check("namespaces", isolation.namespaces, "no PID, mount or IPC namespace", needs=_ISOLATED),
    Check("seccomp", isolation.seccomp, "no system call filter", needs=_ISOLATED),
    Check("mount_setattr", isolation.mount_setattr, "mounts cannot be made read-only", needs=_ISOLATED),
    Check("executor", isolation.executor, "an isolated executor gets out", needs=_ISOLATED),
    Check("user", users.account, "the user is no ordinary one", narrows=_ATTACHED),
    Check("services", users.services, "a service would start processes for the user", needs=_ATTACHED),
    Check("helpers", users.helpers, "a bus or resolver would act for the user", narrows=_ATTACHED),
    Check("AF_VSOCK", users.vsock, "AF_VSOCK is open", narrows=_ATTACHED),
    Check("AF_PACKET", users.packet, "users send frames", needs=_ATTACHED),
    Check("ptrace", users.ptrace, "users trace their other processes", narrows=_ATTACHED),
    Check("TIOCSTI", users.terminal, "users type into their terminal", narrows=_ATTACHED),
    Check("user namespaces", users.user_namespaces, "users are root in namespaces of their own"),
    Check("AF_ALG", users.kernel_crypto, "AF_ALG is open"),
    Check("ping", users.ping, "ICMP sockets are open"),
    Check("io_uring", users.io_uring, "io_uring is open"),
    Check("bpf", users.bpf, "bpf(2) is open"),
    Check("configuration", host.configuration, "no valid configuration"),
    Check("listener port", host.listener_port, "clients may take the proxy's port", narrows=pairs("P8")),
    Check("workers' user", host.workers_account, "workers have more rights than they may", needs=pairs("P2 P3 P4")),
    Check("record_mask", host.record_mask, "texts are recorded as they are", needs=pairs("P4")),
    Check("home", host.home, "this host is not where its regions say", narrows=pairs("P1")),
    Check("records private", host.state_private, "others can read the records", needs=pairs("P4 P6")),
    Check("records stored", host.state_storage, "records may not last", needs=pairs("P6")),
    Check("region tables", host.region_tables, "addresses are judged by old tables"),
    Check("swap", host.swap, "memory is swapped out in clear", narrows=pairs("P4")),
    Check("clock", host.clock, "the clock is not synchronised", narrows=pairs("P6")),
    Check("supervisor", running.answers, "no supervisor answers", needs=pairs("P5 P8")),
    Check("programs", running.attached, "programs are not attached as claimed", needs=pairs("P1 P2 P3 P7")),
    Check("workers", running.workers, "workers do not run as they should", needs=pairs("P5 P8")),
    Check("recorder", running.recorder, "rows cannot be written", needs=pairs("P6 P8")),
    Check("heartbeat", running.heartbeat, "the heartbeat is stale", needs=pairs("P3 P8")),
    Check("enforcing", running.observing, "a policy only observes", narrows=pairs("P1")),
)
