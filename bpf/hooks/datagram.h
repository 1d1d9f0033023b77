/* SPDX-License-Identifier: GPL-2.0-or-later */
/* cgroup sendmsg4/6 and recvmsg4/6: datagrams on sockets that are not connected, or that carry control messages. Port 53 of every
 * address goes to the resolver, whose answer seems to come from the address that was asked; nothing else leaves. */
#ifndef ENFORCER_HOOKS_DATAGRAM_H
#define ENFORCER_HOOKS_DATAGRAM_H

/* Judges one datagram. `*port` is where to rewrite to, 0 for not at all. */
static inline int judge_datagram(struct bpf_sock_addr *ctx, struct flow_record *asked, u16 *port)
{
	struct flow_record *flow;
	struct owner *owner = 0;
	struct listener *listener;
	int mode = claim(ctx, asked, &owner);

	if (mode < 0)
		return VERDICT_PASS;
	if (mode == MODE_REFUSED || !owner)
		return refuse(asked, owner ? REFUSED_PENDING : REFUSED_STORAGE_FULL);
	listener = find_listener(asked);
	if (!listener)
		return refuse(asked, REFUSED_NO_LISTENER);
	flow = flow_of(owner, asked->cookie);
	/* No address given: it goes where connect() went, which was judged there. */
	if (is_null(asked))
		return flow ? VERDICT_PASS : refuse(asked, REFUSED_UDP);
	if (is_loopback(asked) && reaches_own(ctx, asked)) {
		count(LOOPBACK_PASSED);
		return VERDICT_PASS;
	}
	if (is_question(asked, listener)) {
		remember_asked(owner, asked);
		*port = listener->resolver_port;
		count(DNS_REDIRECTED);
		return VERDICT_PASS;
	}
	if (!is_loopback(asked))
		return refuse(asked, REFUSED_UDP);
	if (is_ours(asked, listener)) {
		/* The kernel fills in the address that connect() was rewritten to, where an IPv6 socket speaks IPv4. */
		if (flow && flow->path == PATH_RESOLVER && asked->port == listener->resolver_port)
			return VERDICT_PASS;
		return refuse(asked, REFUSED_DIRECT_DIAL);
	}
	if (mode != MODE_ISOLATED)
		return refuse(asked, REFUSED_LOOPBACK);
	count(LOOPBACK_PASSED);
	return VERDICT_PASS;
}

/* The owner of a socket that receives from its namespace's resolver what it asked elsewhere, or null: for the client's comfort,
 * which takes answers only from where it asked. */
static inline struct owner *owner_of_answer(struct bpf_sock_addr *ctx)
{
	struct owner *owner = owner_by_socket.sk_storage_get(ctx->sk, 0, 0);
	struct place place = {};
	struct listener *listener;

	if (!owner || !owner->asked_family)
		return 0;
	place.netns = owner->netns;
	place.executor = owner->executor;
	listener = listener_by_place.lookup(&place);
	return listener && listener->resolver_port && listener->resolver_port == (u16)ctx->user_port ? owner : 0;
}

#endif
