/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Sizes and numbers with their reasons. */
#ifndef ENFORCER_CONSTS_H
#define ENFORCER_CONSTS_H

/* Connections open at one time over all executors. A host has 28,232 ephemeral ports per namespace and address. */
#define MAX_FLOWS 262144
#define MAX_CLOSED_FLOWS 16384
/* Executors, and cgroups waiting to be classified, at one time. */
#define MAX_EXECUTORS 4096
/* Listeners: an attached executor has one in each network namespace that its processes are in. */
#define MAX_PLACES 8192
/* Refusals not yet read; the supervisor reads four times a second. */
#define MAX_REFUSALS 8192
/* Beginnings and ends of direct flows not yet read: 30,000 a second at that rate of reading. */
#define MAX_DIRECT_EVENTS 16384
#define MAX_CGROUP_EVENTS 4096
/* Processes and threads of attached executors: the default pid_max of a large host. */
#define MAX_GOVERNED_TASKS 65536
#define MAX_WATCHED_PATHS 4096
/* System V queues, segments and semaphore sets of executors: twice what one IPC namespace may have of one kind by default. */
#define MAX_IPC_OBJECTS 65536
/* Set ids are 16 bit in the table file. */
#define MAX_REGION_SETS 65536
/* Inner maps are created at their own size by the supervisor; this one is only the shape. */
#define TEMPLATE_ENTRIES 1
/* Depth of the cgroup tree that is looked at: Kubernetes in systemd comes to 6. */
#define MAX_CGROUP_LEVEL 16

#define VERDICT_REFUSE 0      /* EPERM, or the packet is dropped */
#define VERDICT_PASS 1

#define FAMILY_IPV4 4
#define FAMILY_IPV6 6
#define LINUX_EPERM 1
#define LINUX_AF_UNIX 1
#define LINUX_AF_INET 2
#define LINUX_AF_INET6 10
#define LINUX_AF_NETLINK 16
/* uapi/linux/netlink.h. Those that look things up; without the audit one PAM and sshd end a login. */
#define NETLINK_PROTOCOL_ROUTE 0
#define NETLINK_PROTOCOL_SOCK_DIAG 4
#define NETLINK_PROTOCOL_AUDIT 9
#define NETLINK_PROTOCOL_UEVENT 15
#define NETLINK_PROTOCOL_GENERIC 16
/* PTRACE_MODE_ATTACH of linux/ptrace.h: to write, not only to look. */
#define TRACE_ATTACH 2
/* MAY_WRITE of linux/fs.h. */
#define FILE_WRITE 2
/* KEY_NEED_WRITE of linux/key.h. */
#define KEY_WRITE 3
/* asm-generic/ioctls.h: characters typed into a terminal, and pasted into one of the console's. */
#define IOCTL_TYPE 0x5412
#define IOCTL_CONSOLE 0x541c
#define LINUX_SOCK_STREAM 1
#define LINUX_SOCK_DGRAM 2
#define PROTOCOL_TCP 6
#define PROTOCOL_UDP 17
#define PORT_DNS 53
/* `lo` in every network namespace: LOOPBACK_IFINDEX of include/net/flow.h. */
#define INTERFACE_LOOPBACK 1

#define LEVEL_IP 0
#define LEVEL_SOCKET 1
#define LEVEL_TCP 6
#define LEVEL_IPV6 41
/* netfilter's SO_ORIGINAL_DST / IP6T_SO_ORIGINAL_DST: what transparent proxies ask for. */
#define OPTION_ORIGINAL_DST 80
/* Ours, far from any option the kernel knows at SOL_IP: the whole struct flow_record. */
#define OPTION_FLOW_RECORD 17734
/* The part of an option's value that a program is shown; longer ones must be passed on untouched (bpf sockopt documentation). */
#define OPTION_VISIBLE 4096

#define IPV4_HEADER 20        /* without options: more is refused */
#define IPV6_HEADER 40
#define UDP_HEADER 8
#define TCP_HEADER 20
#define TCP_FLAGS 13          /* where they are in it */
#define TCP_SYN 0x02
#define TCP_ACK 0x10

#define TC_CONTINUE -1        /* TC_ACT_UNSPEC: other filters decide */
#define TC_DROP 2             /* TC_ACT_SHOT */
#define SIGNAL_KILL 9

#endif
