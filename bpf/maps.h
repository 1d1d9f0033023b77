/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Every map. "On a miss" and "when full" always end in a refusal; nothing a verdict rests on is evicted. */
#ifndef ENFORCER_MAPS_H
#define ENFORCER_MAPS_H

/* Key: cgroup id. Value: how it is governed. Written by the supervisor, and by cgroup_mkdir as MODE_REFUSED below a watched
 * path; read by every hook. On a miss: not governed. When full: no further executor; cgroup_mkdir's miss is an event. */
BPF_HASH(executor_by_cgroup, u64, struct executor, MAX_EXECUTORS);

/* Index 0: bit N is set when an executor's cgroup may be N levels below the root of the tree, so that others are not looked
 * up. Written by the supervisor before the executor, read by every hook. Zero: nobody is governed yet. */
BPF_ARRAY(executor_levels, u32, 1);

/* Key: a socket. Value: whose it is, and its last connect(). Written when it is created (or, for one that is older than its
 * executor, when it is first used) and at connect(), read by all; inherited by what it accepts. On a miss: found by cgroup. No
 * memory: the socket is refused. One storage for both, because each packet and each change of state looks it up. */
BPF_F_TABLE("sk_storage", int, struct owner, owner_by_socket, 0, BPF_F_NO_PREALLOC | BPF_F_CLONE);

/* Key: network namespace and executor. Value: the listener there. Written by the supervisor, read by connect, sendmsg and
 * egress. On a miss: refused. When full: the supervisor cannot add a listener. */
BPF_HASH(listener_by_place, struct place, struct listener, MAX_PLACES);

/* Key: network namespace and port. Value: the executor whose listener it is. Written with the listener, read by bind. On a
 * miss: anybody's port. When full: as above. */
BPF_HASH(guarded_ports, struct guarded_port, u64, MAX_PLACES);

/* Key: netns and 4-tuple. Value: the flow. Written before the SYN leaves, deleted at close, read by the proxy through
 * getsockopt. On a miss: the proxy refuses the connection. When full: not written, hence the same. */
BPF_HASH(original_dst_by_tuple, struct tuple, struct flow_record, MAX_FLOWS);

/* The same of connections that their client closed before the proxy had asked: it may still accept them, with all that they
 * carried. Moved here at close, deleted when the proxy asks. On a miss: as above. When full: the oldest goes, hence the same. */
BPF_TABLE("lru_hash", struct tuple, struct flow_record, closed_dst_by_tuple, MAX_CLOSED_FLOWS);

/* Index 0: the current generation; its parity is the slot of the outer maps below, so that one store swaps all of them.
 * Written by the supervisor last. Zero, never loaded: everything is refused. */
BPF_ARRAY(generation, u32, 1);

/* Shapes of the inner maps, never used themselves. Values are words rather than structs: Linux 6.1 takes no inner map that was
 * made without BTF where the shape's value is a struct that has it. */
typedef u32 audience_words[sizeof(struct audience) / 4];
typedef u32 direct_words[sizeof(struct direct_ports) / 4];
BPF_TABLE_TRIE_SHAPE(prefixes4_shape, struct prefix4);
BPF_TABLE_TRIE_SHAPE(prefixes6_shape, struct prefix6);
BPF_ARRAY(coarse_shape, u32, MAX_REGION_SETS);
BPF_HASH(audience_shape, u64, audience_words, TEMPLATE_ENTRIES);
BPF_HASH(direct_shape, struct direct_key, direct_words, TEMPLATE_ENTRIES);

/* Slot: generation parity. Inner: prefix -> region set id. Written by the supervisor before it stores `generation`. On a miss
 * of the slot: refused; of the prefix: region set 0, unknown. */
BPF_ARRAY_OF_MAPS(prefixes4, "prefixes4_shape", 2);
BPF_ARRAY_OF_MAPS(prefixes6, "prefixes6_shape", 2);

/* Slot: generation parity. Inner: region set id -> enum coarse_verdict. Same life. On a miss: refused. */
BPF_ARRAY_OF_MAPS(coarse_by_region_set, "coarse_shape", 2);

/* Slot: generation parity. Inner: executor's cgroup id -> its audience. Same life; also written when an executor starts. On a
 * miss: nothing goes direct, nothing of the host's loopback is reached. */
BPF_ARRAY_OF_MAPS(audience_by_executor, "audience_shape", 2);

/* Slot: generation parity. Inner: audience and region set -> ports that go direct. Same life. On a miss: none. */
BPF_ARRAY_OF_MAPS(direct_by_destination, "direct_shape", 2);

/* Index 0: when the supervisor last said that it lives; index 1: for how long that holds. Nanoseconds since boot. Written by
 * the supervisor, read where direct flows pass. Zero or old: direct flows are refused. */
BPF_ARRAY(heartbeat, u64, 2);

/* Key: beginning of a cgroup's path. Value: the executor at that path, or 0 for a path below which policies name cgroups.
 * Written by the supervisor, read by the cgroup tracepoints. On a miss: nobody's. When full: the supervisor says so. */
BPF_F_TABLE("lpm_trie", struct path_prefix, u64, executor_by_path, MAX_WATCHED_PATHS, BPF_F_NO_PREALLOC);

/* Key: process or thread id. Value: its executor. Written as processes enter, fork and end, read when one is moved. On a miss:
 * not ours. When full: counted, its leaving would not be noticed (its sockets are still judged by their cgroup). */
BPF_HASH(governed_tasks, u32, u64, MAX_GOVERNED_TASKS);

/* Key: a task. Value: its executor's cgroup id. Written as tasks fork and start programs, and by the supervisor when it takes a
 * tree over; read by ptrace_access_check and task_kill; goes with the task. On a miss: not reached by an executor. No memory: the same. */
BPF_TASK_STORAGE(executor_by_task, u64);

/* Key: where a System V IPC object is in the kernel. Value: the executor that made it. Written as such an object is made, read by
 * ipc_permission, deleted with the object. On a miss: not the executor's. When full: no further object is made. */
BPF_F_TABLE("hash", u64, u64, executor_by_ipc, MAX_IPC_OBJECTS, BPF_F_NO_PREALLOC);

/* Index: enum security_slot. Written by the security hooks and the supervisor, read by both. Zero: not asked, no label counts. */
BPF_ARRAY(security, u64, SECURITY_COUNT);

/* Index: enum counter. Read by the supervisor for `enforcer status`. */
BPF_PERCPU_ARRAY(counters, u64, COUNTER_COUNT);

/* Refusals for the record, first in first out. Read by the supervisor. When full: counted as REFUSAL_EVENT_LOST. */
BPF_QUEUE(refusals, struct refusal, MAX_REFUSALS);

/* Direct flows for the record. Read by the supervisor. When full: the flow is refused; an end is counted as lost. */
BPF_QUEUE(direct_events, struct direct_event, MAX_DIRECT_EVENTS);

/* Cgroups made and gone, processes that left. Read by the supervisor. When full: counted as CGROUP_EVENT_LOST. */
BPF_QUEUE(cgroup_events, struct cgroup_event, MAX_CGROUP_EVENTS);

#endif
