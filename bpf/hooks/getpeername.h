/* SPDX-License-Identifier: GPL-2.0-or-later */
/* cgroup getpeername4, getpeername6: the client sees the address it asked for. For the client's comfort only; no verdict
 * rests on it. */
#ifndef ENFORCER_HOOKS_GETPEERNAME_H
#define ENFORCER_HOOKS_GETPEERNAME_H

static inline struct flow_record *flow_of_asker(struct bpf_sock_addr *ctx)
{
	struct flow_record *flow = flow_of(owner_by_socket.sk_storage_get(ctx->sk, 0, 0), bpf_get_socket_cookie(ctx));

	return flow && is_rewritten(flow) ? flow : 0;
}

#endif
