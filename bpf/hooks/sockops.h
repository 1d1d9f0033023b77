/* SPDX-License-Identifier: GPL-2.0-or-later */
/* sock_ops: makes the flow findable from the accepted side, before the SYN leaves, and forgets it at close. */
#ifndef ENFORCER_HOOKS_SOCKOPS_H
#define ENFORCER_HOOKS_SOCKOPS_H

/* The socket's tuple. An IPv4-mapped socket has family AF_INET6 but speaks IPv4 below, as the accepted socket sees it. */
static inline void tuple_of_sockops(struct bpf_sock_ops *ctx, const struct flow_record *flow, struct tuple *key)
{
	key->netns = flow->netns;
	key->source_port = ctx->local_port;
	key->target_port = bpf_ntohl(ctx->remote_port);
	if (flow->family == FAMILY_IPV4) {
		key->source[0] = ctx->local_ip4;
		key->target[0] = ctx->remote_ip4;
	} else {
		key->source[0] = ctx->local_ip6[0];
		key->source[1] = ctx->local_ip6[1];
		key->source[2] = ctx->local_ip6[2];
		key->source[3] = ctx->local_ip6[3];
		key->target[0] = ctx->remote_ip6[0];
		key->target[1] = ctx->remote_ip6[1];
		key->target[2] = ctx->remote_ip6[2];
		key->target[3] = ctx->remote_ip6[3];
	}
}

static inline void remember_tuple(struct bpf_sock_ops *ctx, struct flow_record *flow)
{
	struct flow_record value = *flow;
	struct tuple key = {};

	value.rule = 0;
	tuple_of_sockops(ctx, flow, &key);
	closed_dst_by_tuple.delete(&key);
	if (original_dst_by_tuple.update(&key, &value))
		count(UNMAPPED_TUPLE_FULL);
}

/* The port may already belong to a newer connection: delete only what this socket wrote. Who connects, sends and closes at once is
 * gone before the proxy has accepted; of a connection that came about, the flow is kept until it asks. */
static inline void forget_tuple(struct bpf_sock_ops *ctx, struct flow_record *flow)
{
	struct flow_record *value, kept;
	struct tuple key = {};

	tuple_of_sockops(ctx, flow, &key);
	value = original_dst_by_tuple.lookup(&key);
	if (!value || value->cookie != flow->cookie)
		return;
	if (!value->rule && ctx->args[0] != BPF_TCP_SYN_SENT) {
		kept = *value;
		closed_dst_by_tuple.update(&key, &kept);
	}
	original_dst_by_tuple.delete(&key);
}

/* Did the other side's FIN come? In FIN_WAIT2 the state does not say: the kernel lets go of a closed socket there, and counts a FIN
 * as one byte. What has come since, then, was its FIN, or it would be waiting for one (unless the client closed while data were
 * still coming in: one byte too few). */
static inline int has_fin_come(struct bpf_sock_ops *ctx, const struct owner *owner, u32 last)
{
	if (last == BPF_TCP_CLOSE_WAIT || last == BPF_TCP_LAST_ACK || last == BPF_TCP_CLOSING)
		return 1;
	return last == BPF_TCP_FIN_WAIT2 && owner->received_before_fin && ctx->bytes_received + 1 != owner->received_before_fin;
}

/* The end of a direct flow, with the payload that went over it. The kernel counts sequence numbers: a SYN or FIN that was
 * acknowledged, or a FIN that came, is one. */
static inline void close_direct(struct bpf_sock_ops *ctx, const struct owner *owner)
{
	struct direct_event event = {};
	u32 last = ctx->args[0];
	u64 up = ctx->bytes_acked, down = ctx->bytes_received;
	u64 extra_up = 1 + (last == BPF_TCP_FIN_WAIT2 || last == BPF_TCP_CLOSING || last == BPF_TCP_LAST_ACK);
	u64 extra_down = has_fin_come(ctx, owner, last);

	event.flow = owner->flow;
	event.time = bpf_ktime_get_boot_ns();
	event.bytes_up = up > extra_up ? up - extra_up : 0;
	event.bytes_down = down > extra_down ? down - extra_down : 0;
	event.ended = 1;
	if (direct_events.push(&event, 0))
		count(DIRECT_EVENT_LOST);
}

static inline void track_connection(struct bpf_sock_ops *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	struct flow_record *flow;
	struct owner *owner;

	if (!sk)
		return;
	owner = owner_by_socket.sk_storage_get(sk, 0, 0);
	flow = flow_of(owner, bpf_get_socket_cookie(ctx));
	if (!flow || (flow->path != PATH_PROXY && flow->path != PATH_DIRECT))
		return;
	if (ctx->op == BPF_SOCK_OPS_TCP_CONNECT_CB) {
		if (flow->path == PATH_PROXY)
			remember_tuple(ctx, flow);
		bpf_sock_ops_cb_flags_set(ctx, ctx->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG);
	} else if (ctx->args[1] == BPF_TCP_CLOSE) {
		if (flow->path == PATH_PROXY)
			forget_tuple(ctx, flow);
		else
			close_direct(ctx, owner);
	} else if (ctx->args[1] == BPF_TCP_FIN_WAIT2 && flow->path == PATH_DIRECT) {
		owner->received_before_fin = ctx->bytes_received + 1;
	}
}

#endif
