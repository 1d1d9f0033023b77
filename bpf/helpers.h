/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Small inline helpers that touch maps: counting, reporting a refusal, finding a region. */
#ifndef ENFORCER_HELPERS_H
#define ENFORCER_HELPERS_H

static inline void count(int reason)
{
	u64 *value = counters.lookup(&reason);
	if (value)
		(*value)++;
}

/* Counts and queues a refusal; always returns VERDICT_REFUSE so that callers end with it. */
static inline int refuse(struct flow_record *flow, int reason)
{
	struct refusal event = {};

	count(reason);
	event.time = bpf_ktime_get_ns();
	event.executor = flow->executor;
	event.address[0] = flow->address[0];
	event.address[1] = flow->address[1];
	event.address[2] = flow->address[2];
	event.address[3] = flow->address[3];
	event.pid = flow->pid;
	event.uid = flow->uid;
	event.port = flow->port;
	event.family = flow->family;
	event.reason = reason;
	if (refusals.push(&event, 0))
		count(REFUSAL_EVENT_LOST);
	return VERDICT_REFUSE;
}

/* Region set of the flow's destination in slot `slot`; 0 when no prefix matches or the slot is empty. */
static inline u32 find_region_set(struct flow_record *flow, int slot)
{
	u32 *set;

	if (flow->family == FAMILY_IPV4) {
		struct prefix4 key = { .length = 32, .address = flow->address[0] };
		void *trie = prefixes4.lookup(&slot);
		if (!trie)
			return 0;
		set = bpf_map_lookup_elem(trie, &key);
	} else {
		struct prefix6 key = { .length = 128 };
		void *trie = prefixes6.lookup(&slot);
		if (!trie)
			return 0;
		key.address[0] = flow->address[0];
		key.address[1] = flow->address[1];
		key.address[2] = flow->address[2];
		key.address[3] = flow->address[3];
		set = bpf_map_lookup_elem(trie, &key);
	}
	return set ? *set : 0;
}

static inline u32 find_coarse_verdict(u32 region_set, int slot)
{
	void *coarse = coarse_by_region_set.lookup(&slot);
	u32 *verdict;

	if (!coarse)
		return COARSE_REFUSE;
	verdict = bpf_map_lookup_elem(coarse, &region_set);
	return verdict ? *verdict : COARSE_REFUSE;
}

#endif
