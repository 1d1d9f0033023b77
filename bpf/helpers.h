/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Small inline helpers that touch maps: counting, reporting a refusal, finding an owner, a listener, a region. */
#ifndef ENFORCER_HELPERS_H
#define ENFORCER_HELPERS_H

static inline void count(int reason)
{
	u64 *value = counters.lookup(&reason);
	if (value)
		(*value)++;
}

/* Counts and queues a refusal; always returns VERDICT_REFUSE so that callers end with it. */
static inline int refuse(const struct flow_record *flow, int reason)
{
	struct refusal event = {};

	count(reason);
	event.time = bpf_ktime_get_ns();
	event.executor = flow->executor;
	event.netns = flow->netns;
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

static inline u32 governed_levels(void)
{
	int index = 0;
	u32 *levels = executor_levels.lookup(&index);

	return levels ? *levels : 0;
}

/* Cgroup id of the executor that the current task is in, the deepest one, or 0. Right only where the task acts for itself:
 * at socket(), bind(), connect(), sendmsg(). */
static inline u64 executor_of_task(void)
{
	u32 levels = governed_levels();
	u64 found = 0;

	for (int level = 1; level <= MAX_CGROUP_LEVEL; level++) {
		u64 id;

		if (!(levels & (1u << (level - 1))))
			continue;
		id = bpf_get_current_ancestor_cgroup_id(level);
		if (id && executor_by_cgroup.lookup(&id))
			found = id;
	}
	return found;
}

/* The same by the socket's own cgroup, which never changes: where packets are judged. */
static inline u64 executor_of_socket(struct bpf_sock *sk)
{
	u32 levels = governed_levels();
	u64 found = 0;

	for (int level = 1; level <= MAX_CGROUP_LEVEL; level++) {
		u64 id;

		if (!(levels & (1u << (level - 1))))
			continue;
		id = bpf_sk_ancestor_cgroup_id(sk, level);
		if (id && executor_by_cgroup.lookup(&id))
			found = id;
	}
	return found;
}

static inline u64 executor_of_packet(struct __sk_buff *skb)
{
	u32 levels = governed_levels();
	u64 found = 0;

	for (int level = 1; level <= MAX_CGROUP_LEVEL; level++) {
		u64 id;

		if (!(levels & (1u << (level - 1))))
			continue;
		id = bpf_skb_ancestor_cgroup_id(skb, level);
		if (id && executor_by_cgroup.lookup(&id))
			found = id;
	}
	return found;
}

/* The socket's own last connect(), or null. An accepted socket has a copy of what its listener was connected to before. */
static inline struct flow_record *flow_of(struct owner *owner, u64 cookie)
{
	return owner && owner->flow.path != PATH_NONE && owner->flow.cookie == cookie ? &owner->flow : 0;
}

/* Has the supervisor been heard of? `now` in nanoseconds since boot; it may have spoken since. */
static inline int is_alive(u64 now)
{
	int beat = 0, limit = 1;
	u64 *last = heartbeat.lookup(&beat);
	u64 *allowed = heartbeat.lookup(&limit);

	return last && allowed && *last && (s64)(now - *last) <= (s64)*allowed;
}

/* Region set of the flow's destination in slot `slot`; 0 when no prefix matches or the slot is empty. */
static inline u32 find_region_set(const struct flow_record *flow, int slot)
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

static inline struct audience *find_audience(u64 executor, int slot)
{
	void *audiences = audience_by_executor.lookup(&slot);

	return audiences ? bpf_map_lookup_elem(audiences, &executor) : 0;
}

/* Does a rule let the flow go directly? Then `flow->rule` says which. */
static inline int is_direct(struct flow_record *flow, int slot)
{
	struct audience *audience = find_audience(flow->executor, slot);
	void *destinations = direct_by_destination.lookup(&slot);
	struct direct_key key = {};
	struct direct_ports *ports;
	u16 port = bpf_ntohs(flow->port);

	if (!audience || !destinations)
		return 0;
	key.audience = audience->number;
	key.region_set = flow->region_set;
	ports = bpf_map_lookup_elem(destinations, &key);
	if (!ports)
		return 0;
	for (int i = 0; i < MAX_DIRECT_RANGES; i++) {
		if (i < ports->count && port >= ports->ranges[i].low && port <= ports->ranges[i].high) {
			flow->rule = ports->ranges[i].rule;
			return 1;
		}
	}
	return 0;
}

/* May some rule allow this port of the host's own loopback? */
static inline int is_host_port(const struct flow_record *flow, int slot)
{
	struct audience *audience = find_audience(flow->executor, slot);
	u16 port = bpf_ntohs(flow->port);

	if (!audience)
		return 0;
	for (int i = 0; i < MAX_HOST_RANGES; i++) {
		if (i < audience->host_count && port >= audience->host[i].low && port <= audience->host[i].high)
			return 1;
	}
	return 0;
}

#endif
