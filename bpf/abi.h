/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Everything both sides see: enums and structs. enforcer/capture/abi.py mirrors this file and refuses to start when
 * a field's name, offset or size differs. Flat, padded by hand; addresses and ports in network byte order. */
#ifndef ENFORCER_ABI_H
#define ENFORCER_ABI_H

/* Why something was counted; the order is the index into `counters`. `enforcer status` prints these names. */
enum counter {
	REDIRECTED,               /* connect() rewritten to the listener */
	LOOPBACK_PASSED,          /* the executor spoke to its own loopback */
	DIRECT_PASSED,            /* connect() let go directly, as a rule says */
	DNS_REDIRECTED,           /* a datagram to port 53 rewritten to the resolver */
	REFUSED_NO_LISTENER,      /* the socket's network namespace has no listener for this executor */
	REFUSED_NO_GENERATION,    /* no policy and table generation was ever loaded */
	REFUSED_REGION_CLASS,     /* the coarse verdict of the region set is a refusal */
	REFUSED_UDP,              /* a datagram to anything but the resolver or the executor's own loopback */
	REFUSED_DIRECT_DIAL,      /* the executor dialled the listener or the resolver itself */
	REFUSED_LOOPBACK,         /* a service of the host's loopback that no rule names */
	REFUSED_STORAGE_FULL,     /* no socket storage for the flow */
	REFUSED_PENDING,          /* the cgroup is not classified yet, or its executor is not ready */
	REFUSED_SOCKET_TYPE,      /* socket() of a raw or other type, or of a protocol that is neither TCP nor UDP */
	REFUSED_BIND,             /* bind() to the listener's or the resolver's port */
	REFUSED_OPTION,           /* setsockopt() of source routes, extension headers, marks, devices */
	REFUSED_PACKET,           /* a packet that no verdict covers, at the last line */
	REFUSED_PACKET_FORM,      /* a packet with options, extension headers, fragments, neither TCP nor UDP, or cut short */
	REFUSED_UPLINK,           /* a packet of an executor at an uplink that no verdict covers */
	REFUSED_STALE,            /* a direct flow while the supervisor is silent */
	REFUSED_UNRECORDED,       /* a direct flow whose beginning could not be queued for the record */
	REFUSED_FAMILY,           /* socket() of an address family that is not let in (LSM) */
	REFUSED_UNIX,             /* connect() to a Unix socket of a process outside (LSM) */
	REFUSED_FILE,             /* a socket from outside received or used (LSM) */
	REFUSED_PTRACE,           /* tracing a process outside (LSM) */
	REFUSED_BPF,              /* bpf() in an executor (LSM) */
	REFUSED_NEIGHBOUR,        /* signals, System V IPC, keyrings and terminals, by which processes outside are reached (LSM) */
	UNMAPPED_TUPLE_FULL,      /* original_dst_by_tuple full: the proxy will refuse the connection */
	UNMAPPED_NO_FLOW,         /* the proxy asked for a connection that was never captured */
	MAPPED,                   /* the proxy was told an original destination */
	ESCAPE_NOTICED,           /* a process was moved out of its executor's cgroup */
	ESCAPE_KILLED,            /* a process that moved one out was killed for it */
	TASK_UNTRACKED,           /* governed_tasks full: a process whose leaving would not be noticed */
	REFUSAL_EVENT_LOST,       /* `refusals` full: the refusal holds, its event is lost */
	DIRECT_EVENT_LOST,        /* `direct_events` full: the end of a direct flow is not recorded */
	CGROUP_EVENT_LOST,        /* `cgroup_events` full */
	COUNTER_COUNT,
};

/* What a region set's prefix gets before any protocol is known. Zero, the value of a slot never written, refuses. */
enum coarse_verdict {
	COARSE_REFUSE,
	COARSE_REDIRECT,
	COARSE_MAYBE_DIRECT,      /* redirect, unless `direct_by_destination` has the port for this executor */
};

/* How an executor is governed. Zero refuses everything. */
enum executor_mode {
	MODE_REFUSED,             /* known to be governed, not yet as what */
	MODE_ISOLATED,            /* in a network namespace of its own, which has only `lo` */
	MODE_ATTACHED,            /* in a namespace that it shares with others, or that somebody else made */
};

/* Where the socket's last connect() went. */
enum flow_path {
	PATH_NONE,
	PATH_PROXY,
	PATH_LOOPBACK,
	PATH_DIRECT,
	PATH_RESOLVER,
};

struct executor {
	__u32 mode;               /* enum executor_mode */
	__u32 pad;
};

/* In place of an executor: a Unix socket that the configuration lets every executor speak to. No cgroup has this id. */
#define OWNER_ANYONE 0xffffffffffffffffULL

/* Index into `security`. */
enum security_slot {
	SECURITY_ASKED,           /* not zero once the kernel asked a security hook of ours */
	SECURITY_EPOCH,           /* which labels OWNER_ANYONE count: those made under the configuration in force */
	SECURITY_SETTLED,         /* not zero once what is older than these programs has its labels: from then on none is a refusal */
	SECURITY_COUNT,
};

/* One judged connection. */
struct flow_record {
	__u64 cookie;             /* socket cookie of the executor's socket */
	__u64 executor;           /* cgroup id of the executor */
	__u64 netns;              /* network namespace cookie of that socket */
	__u64 opened;             /* nanoseconds since boot, suspend included */
	__u32 address[4];         /* original destination; IPv4 in address[0], the rest zero */
	__u32 region_set;         /* id in the table generation below; 0 is unknown */
	__u32 generation;         /* generation the kernel judged by */
	__u32 pid;                /* of the task that called connect(); for the record, not for decisions */
	__u32 uid;
	__u16 port;               /* original destination port */
	__u8 family;              /* 4 or 6, of the original destination (IPv4-mapped counts as 4) */
	__u8 path;                /* enum flow_path */
	__u32 rule;               /* of a direct flow: index into that generation's direct rules; of a proxied one, in
				   * original_dst_by_tuple: 1 once the proxy has asked for it */
};

/* Whose a socket is, from its creation on, and its last connect(). Accepted sockets inherit it, as a copy. */
struct owner {
	__u64 executor;           /* cgroup id, or OWNER_ANYONE */
	__u64 netns;              /* network namespace cookie; 0 where it is not IP; of OWNER_ANYONE the epoch that it counts in */
	__u32 asked[4];           /* last destination whose datagram went to the resolver */
	__u16 asked_port;
	__u8 asked_family;        /* 4, 6, or 0 for none */
	__u8 pad[5];
	struct flow_record flow;  /* of the socket that its cookie names: of another one it is inherited, and void */
	__u64 received_before_fin; /* of a direct flow: bytes received when its own FIN was acknowledged, plus one; 0 before */
};

/* A connection as both ends name it: seen from the executor's socket. */
struct tuple {
	__u64 netns;
	__u32 source[4];
	__u32 target[4];
	__u16 source_port;
	__u16 target_port;
	__u32 pad;
};

/* An executor in one network namespace. */
struct place {
	__u64 netns;
	__u64 executor;
};

/* Where the flows of a place go: ports of 127.0.0.1 and ::1 there. */
struct listener {
	__u16 port;
	__u16 resolver_port;      /* 0: none, datagrams to port 53 are refused */
	__u32 pad;
};

/* A port that executors may not bind. */
struct guarded_port {
	__u64 netns;
	__u16 port;
	__u16 pad[3];
};

/* Inclusive, host byte order. */
struct port_range {
	__u16 low;
	__u16 high;
};

#define MAX_HOST_RANGES 8
#define MAX_DIRECT_RANGES 4

/* What a generation says of one executor beyond regions. */
struct audience {
	__u32 number;             /* executors to which the same policies apply share it */
	__u32 host_count;
	struct port_range host[MAX_HOST_RANGES]; /* ports of the host's loopback that some rule may allow: to the proxy */
};

struct direct_key {
	__u32 audience;
	__u32 region_set;
};

struct direct_range {
	__u16 low;
	__u16 high;
	__u32 rule;
};

struct direct_ports {
	__u32 count;
	struct direct_range ranges[MAX_DIRECT_RANGES];
};

/* A refusal made in the kernel, for the record. */
struct refusal {
	__u64 time;               /* ktime, nanoseconds since boot */
	__u64 executor;
	__u64 netns;
	__u32 address[4];
	__u32 pid;
	__u32 uid;
	__u16 port;
	__u8 family;              /* 4, 6, or 0 where there is no address */
	__u8 reason;              /* enum counter */
	__u32 pad;
};

/* A direct flow begins or ends. */
struct direct_event {
	struct flow_record flow;
	__u64 time;               /* nanoseconds since boot, suspend included */
	__u64 bytes_up;
	__u64 bytes_down;
	__u64 ended;              /* 0: it begins */
};

enum cgroup_event_kind {
	CGROUP_MADE,              /* below a path that policies watch */
	CGROUP_GONE,
	CGROUP_ESCAPE,            /* `pid` left the executor */
};

struct cgroup_event {
	__u64 time;
	__u64 cgroup;             /* made, gone, or where the process went */
	__u64 executor;           /* of an escape: which one it left */
	__u32 kind;
	__u32 pid;
	__u32 by;                 /* process that moved it */
	__u32 killed;             /* the mover was of an executor itself, and was killed */
};

/* A cgroup's path with a final slash; longest-prefix key in bits. */
#define PATH_BYTES 248
struct path_prefix {
	__u32 length;
	__u8 path[PATH_BYTES];
};

/* Longest-prefix keys; the value is a region set id. */
struct prefix4 {
	__u32 length;
	__u32 address;
};

struct prefix6 {
	__u32 length;
	__u32 address[4];
};

#endif
