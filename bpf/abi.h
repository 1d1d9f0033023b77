/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Everything both sides see: enums and structs. enforcer/capture/abi.py mirrors this file and refuses to start when
 * a field's name, offset or size differs. Flat, padded by hand; addresses and ports in network byte order. */
#ifndef ENFORCER_ABI_H
#define ENFORCER_ABI_H

/* Why something was counted; the order is the index into `counters`. `enforcer status` prints these names. */
enum counter {
	REDIRECTED,               /* connect() rewritten to the listener */
	LOOPBACK_PASSED,          /* the executor spoke to its own loopback */
	REFUSED_NO_LISTENER,      /* the socket's network namespace has no listener */
	REFUSED_NO_GENERATION,    /* no policy and table generation was ever loaded */
	REFUSED_REGION_CLASS,     /* the coarse verdict of the region set is a refusal */
	REFUSED_NOT_TCP,          /* connect() on anything but TCP */
	REFUSED_DIRECT_DIAL,      /* the executor dialled the listener itself */
	REFUSED_STORAGE_FULL,     /* no socket storage for the flow */
	UNMAPPED_TUPLE_FULL,      /* original_dst_by_tuple full: the proxy will refuse the connection */
	UNMAPPED_NO_FLOW,         /* the proxy asked for a connection that was never captured */
	MAPPED,                   /* the proxy was told an original destination */
	REFUSAL_EVENT_LOST,       /* `refusals` full: the refusal holds, its event is lost */
	COUNTER_COUNT,
};

/* What a region set's prefix gets before any protocol is known. Zero, the value of a slot never written, refuses. */
enum coarse_verdict {
	COARSE_REFUSE,
	COARSE_REDIRECT,
};

/* One redirected connection. */
struct flow_record {
	__u64 cookie;             /* socket cookie of the executor's socket */
	__u64 executor;           /* cgroup id of the executor */
	__u64 netns;              /* network namespace cookie of that socket */
	__u32 address[4];         /* original destination; IPv4 in address[0], the rest zero */
	__u32 region_set;         /* id in the table generation below; 0 is unknown */
	__u32 generation;         /* generation the kernel judged by */
	__u32 pid;                /* of the task that called connect(); for the record, not for decisions */
	__u32 uid;
	__u16 port;               /* original destination port */
	__u8 family;              /* 4 or 6, of the original destination (IPv4-mapped counts as 4) */
	__u8 redirected;          /* 0: the socket's last connect() was not redirected */
	__u32 pad;
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

/* Where a network namespace's flows go, and whose they are. */
struct listener {
	__u64 executor;           /* cgroup id */
	__u16 port;               /* of 127.0.0.1 and ::1 inside that namespace */
	__u16 pad[3];
};

/* A refusal made in the kernel, for the record. */
struct refusal {
	__u64 time;               /* ktime, nanoseconds since boot */
	__u64 executor;
	__u32 address[4];
	__u32 pid;
	__u32 uid;
	__u16 port;
	__u8 family;
	__u8 reason;              /* enum counter */
	__u32 pad;
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
