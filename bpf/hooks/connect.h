/* SPDX-License-Identifier: GPL-2.0-or-later */
/* cgroup connect4, connect6: step 1 of 6, capture. Gets the address asked for; refuses, passes the executor's own loopback, lets go
 * directly what a rule lets go, or redirects to the listener of the executor in the socket's network namespace and remembers
 * the original destination. */
#ifndef ENFORCER_HOOKS_CONNECT_H
#define ENFORCER_HOOKS_CONNECT_H

/* Queues the beginning of a direct flow; without a record it does not begin. */
static inline int open_direct(struct flow_record *asked)
{
	struct direct_event event = {};

	if (!is_alive(asked->opened))
		return refuse(asked, REFUSED_STALE);
	asked->path = PATH_DIRECT;
	event.flow = *asked;
	event.time = asked->opened;
	if (direct_events.push(&event, 0))
		return refuse(asked, REFUSED_UNRECORDED);
	return VERDICT_PASS;
}

/* Loopback: the executor's own servers; the resolver in place of the host's; and where a rule names a port of the host's, the
 * proxy. */
static inline int judge_loopback(struct bpf_sock_addr *ctx, struct flow_record *asked, u32 mode, struct listener *listener)
{
	int index = 0;
	u32 *current_generation;

	asked->path = PATH_LOOPBACK;
	if (reaches_own(ctx, asked))
		return VERDICT_PASS;
	if (ctx->protocol == PROTOCOL_UDP && is_question(asked, listener)) {
		asked->path = PATH_RESOLVER;
		return VERDICT_PASS;
	}
	if (is_ours(asked, listener))
		return refuse(asked, REFUSED_DIRECT_DIAL);
	current_generation = generation.lookup(&index);
	if (ctx->protocol == PROTOCOL_TCP && current_generation && *current_generation &&
	    is_host_port(asked, *current_generation & 1)) {
		asked->generation = *current_generation;
		asked->region_set = find_region_set(asked, *current_generation & 1);
		asked->path = PATH_PROXY;
		return VERDICT_PASS;
	}
	/* In a namespace of its own nobody else can be there: the executor gets the kernel's own "connection refused". */
	return mode == MODE_ISOLATED ? VERDICT_PASS : refuse(asked, REFUSED_LOOPBACK);
}

static inline int judge_tcp(struct flow_record *asked, u32 mode, const struct listener *listener)
{
	int index = 0, slot;
	u32 *current_generation = generation.lookup(&index);
	u32 verdict;

	if (!current_generation || *current_generation == 0)
		return refuse(asked, REFUSED_NO_GENERATION);
	asked->generation = *current_generation;
	slot = asked->generation & 1;
	asked->region_set = find_region_set(asked, slot);
	verdict = find_coarse_verdict(asked->region_set, slot);
	/* An isolated executor has no route: what could go directly takes the proxy. So does a question to a resolver. */
	if (verdict == COARSE_MAYBE_DIRECT && mode == MODE_ATTACHED && !is_question(asked, listener) && is_direct(asked, slot))
		return open_direct(asked);
	if (verdict != COARSE_REDIRECT && verdict != COARSE_MAYBE_DIRECT)
		return refuse(asked, REFUSED_REGION_CLASS);
	asked->path = PATH_PROXY;
	return VERDICT_PASS;
}

/* Judges `asked` and writes it to the socket's storage. Returns VERDICT_*; `asked->path` says whether to rewrite, and `*port`
 * where to. The storage is overwritten at every connect(): a socket may be connected again elsewhere. */
static inline int judge_connect(struct bpf_sock_addr *ctx, struct flow_record *asked, u16 *port)
{
	struct owner *owner = 0;
	struct listener *listener;
	int mode = claim(ctx, asked, &owner);
	int verdict;

	if (mode < 0)
		return VERDICT_PASS;
	if (mode == MODE_REFUSED || !owner)
		return refuse(asked, owner ? REFUSED_PENDING : REFUSED_STORAGE_FULL);
	listener = find_listener(asked);
	if (!listener)
		return refuse(asked, REFUSED_NO_LISTENER);
	asked->opened = bpf_ktime_get_boot_ns();

	if (is_loopback(asked)) {
		verdict = judge_loopback(ctx, asked, mode, listener);
	} else if (ctx->protocol == PROTOCOL_TCP) {
		verdict = judge_tcp(asked, mode, listener);
	} else if (is_question(asked, listener)) {
		asked->path = PATH_RESOLVER;
		verdict = VERDICT_PASS;
	} else {
		verdict = refuse(asked, REFUSED_UDP);
	}
	if (verdict != VERDICT_PASS)
		return verdict;
	*port = asked->path == PATH_RESOLVER ? listener->resolver_port : listener->port;
	if (asked->path == PATH_RESOLVER)
		remember_asked(owner, asked);
	owner->flow = *asked;
	owner->received_before_fin = 0;
	if (asked->path == PATH_PROXY)
		count(REDIRECTED);
	else if (asked->path == PATH_LOOPBACK)
		count(LOOPBACK_PASSED);
	else if (asked->path == PATH_DIRECT)
		count(DIRECT_PASSED);
	else
		count(DNS_REDIRECTED);
	return VERDICT_PASS;
}

static inline int is_rewritten(const struct flow_record *asked)
{
	return asked->path == PATH_PROXY || asked->path == PATH_RESOLVER;
}

#endif
