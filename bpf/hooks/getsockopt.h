/* SPDX-License-Identifier: GPL-2.0-or-later */
/* cgroup getsockopt on the enforcer's own cgroup: tells the proxy what an accepted connection was meant for. Without a mapping it
 * is an error; the kernel's own answer (conntrack's) is never passed on. */
#ifndef ENFORCER_HOOKS_GETSOCKOPT_H
#define ENFORCER_HOOKS_GETSOCKOPT_H

/* The tuple of an accepted connection, as its other end writes it. */
static inline void tuple_of_accepted(struct bpf_sockopt *ctx, struct bpf_sock *sk, struct tuple *key)
{
	key->netns = bpf_get_netns_cookie(ctx);
	key->source_port = bpf_ntohs(sk->dst_port);
	key->target_port = sk->src_port;
	if (sk->family == LINUX_AF_INET) {
		key->source[0] = sk->dst_ip4;
		key->target[0] = sk->src_ip4;
	} else {
		key->source[0] = sk->dst_ip6[0];
		key->source[1] = sk->dst_ip6[1];
		key->source[2] = sk->dst_ip6[2];
		key->source[3] = sk->dst_ip6[3];
		key->target[0] = sk->src_ip6[0];
		key->target[1] = sk->src_ip6[1];
		key->target[2] = sk->src_ip6[2];
		key->target[3] = sk->src_ip6[3];
	}
}

static inline int answer_flow_record(struct bpf_sockopt *ctx, struct flow_record *flow)
{
	struct flow_record *answer = ctx->optval;

	if ((void *)(answer + 1) > ctx->optval_end)
		return 0;
	*answer = *flow;
	ctx->optlen = sizeof(*answer);
	return 1;
}

/* struct sockaddr_in, as netfilter answers. */
static inline int answer_sockaddr4(struct bpf_sockopt *ctx, struct flow_record *flow)
{
	u32 *word = ctx->optval;

	if (flow->family != FAMILY_IPV4 || (void *)(word + 4) > ctx->optval_end)
		return 0;
	word[0] = LINUX_AF_INET | ((u32)flow->port << 16);
	word[1] = flow->address[0];
	word[2] = 0;
	word[3] = 0;
	ctx->optlen = 16;
	return 1;
}

/* struct sockaddr_in6. */
static inline int answer_sockaddr6(struct bpf_sockopt *ctx, struct flow_record *flow)
{
	u32 *word = ctx->optval;

	if (flow->family != FAMILY_IPV6 || (void *)(word + 7) > ctx->optval_end)
		return 0;
	word[0] = LINUX_AF_INET6 | ((u32)flow->port << 16);
	word[1] = 0;
	word[2] = flow->address[0];
	word[3] = flow->address[1];
	word[4] = flow->address[2];
	word[5] = flow->address[3];
	word[6] = 0;
	ctx->optlen = 28;
	return 1;
}

static inline int answer_original_destination(struct bpf_sockopt *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	struct flow_record *flow = 0, *closed = 0;
	struct tuple key = {};
	int answered;
	int original = ctx->optname == OPTION_ORIGINAL_DST && (ctx->level == LEVEL_IP || ctx->level == LEVEL_IPV6);

	if (!original && !(ctx->optname == OPTION_FLOW_RECORD && ctx->level == LEVEL_IP))
		return VERDICT_PASS;
	if (sk) {
		tuple_of_accepted(ctx, sk, &key);
		flow = original_dst_by_tuple.lookup(&key);
		if (!flow)
			flow = closed = closed_dst_by_tuple.lookup(&key);
	}
	if (!flow) {
		count(UNMAPPED_NO_FLOW);
		return VERDICT_REFUSE;
	}
	if (ctx->optname == OPTION_FLOW_RECORD)
		answered = answer_flow_record(ctx, flow);
	else if (ctx->level == LEVEL_IP)
		answered = answer_sockaddr4(ctx, flow);
	else
		answered = answer_sockaddr6(ctx, flow);
	if (!answered)
		return VERDICT_REFUSE;
	if (closed)
		closed_dst_by_tuple.delete(&key);
	else
		flow->rule = 1;
	/* clang merges this store with the one to optlen, and the verifier refuses an 8-byte store to the context. */
	barrier();
	ctx->retval = 0;
	count(MAPPED);
	return VERDICT_PASS;
}

#endif
