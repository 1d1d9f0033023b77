/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Every map. "On a miss" and "when full" always end in a refusal; nothing a verdict rests on is evicted. */
#ifndef ENFORCER_MAPS_H
#define ENFORCER_MAPS_H

/* Key: netns cookie. Value: its listener and executor. Written by the supervisor when an executor starts and ends, read at
 * connect(). On a miss: refused. When full: the supervisor cannot start another executor. */
BPF_HASH(listener_by_netns, u64, struct listener, MAX_EXECUTORS);

/* Key: the executor's socket. Value: its last connect(). Written at connect(), read by sock_ops and getpeername; the kernel
 * frees it with the socket. On a miss: not ours. No memory: refused. */
BPF_SK_STORAGE(flow_by_socket, struct flow_record);

/* Key: netns and 4-tuple. Value: the flow. Written before the SYN leaves, deleted at close, read by the proxy through
 * getsockopt. On a miss: the proxy refuses the connection. When full: not written, hence the same. */
BPF_HASH(original_dst_by_tuple, struct tuple, struct flow_record, MAX_FLOWS);

/* Index 0: the current generation; its parity is the slot of the three outer maps below, so that one store swaps all three.
 * Written by the supervisor last. Zero, never loaded: everything is refused. */
BPF_ARRAY(generation, u32, 1);

/* Shapes of the inner maps, never used themselves. */
BPF_TABLE_TRIE_SHAPE(prefixes4_shape, struct prefix4);
BPF_TABLE_TRIE_SHAPE(prefixes6_shape, struct prefix6);
BPF_ARRAY(coarse_shape, u32, MAX_REGION_SETS);

/* Slot: generation parity. Inner: prefix -> region set id. Written by the supervisor before it stores `generation`. On a miss
 * of the slot: refused; of the prefix: region set 0, unknown. */
BPF_ARRAY_OF_MAPS(prefixes4, "prefixes4_shape", 2);
BPF_ARRAY_OF_MAPS(prefixes6, "prefixes6_shape", 2);

/* Slot: generation parity. Inner: region set id -> enum coarse_verdict. Same life. On a miss: refused. */
BPF_ARRAY_OF_MAPS(coarse_by_region_set, "coarse_shape", 2);

/* Index: enum counter. Read by the supervisor for `enforcer status`. */
BPF_PERCPU_ARRAY(counters, u64, COUNTER_COUNT);

/* Refusals for the record, first in first out. Read by the supervisor. When full: counted as REFUSAL_EVENT_LOST. */
BPF_QUEUE(refusals, struct refusal, MAX_REFUSALS);

#endif
