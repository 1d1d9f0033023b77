/* SPDX-License-Identifier: GPL-2.0-or-later */
/* cgroup connect4, connect6: step 1 of 6, capture. Gets the address asked for; refuses, passes the executor's own loopback,
 * or redirects to the listener of the socket's network namespace and remembers the original destination. */
#ifndef ENFORCER_HOOKS_CONNECT_H
#define ENFORCER_HOOKS_CONNECT_H

/* Judges `asked` and writes it to the socket's storage. Returns VERDICT_*; `asked->redirected` says whether to rewrite, and
 * `*listener_port` where to. The storage is overwritten at every connect(): a socket may be connected again elsewhere. */
static inline int judge_connect(struct bpf_sock_addr *ctx, struct flow_record *asked, u16 *listener_port)
{
	struct flow_record *flow;
	struct listener *listener;
	int index = 0, slot;
	u32 *current_generation;

	asked->netns = bpf_get_netns_cookie(ctx);
	asked->cookie = bpf_get_socket_cookie(ctx);
	asked->pid = bpf_get_current_pid_tgid() >> 32;
	asked->uid = bpf_get_current_uid_gid();

	/* The socket's namespace says whose flow this is: unlike pid, comm or mark it cannot be chosen by the caller. */
	listener = listener_by_netns.lookup(&asked->netns);
	if (!listener)
		return refuse(asked, REFUSED_NO_LISTENER);
	asked->executor = listener->executor;
	*listener_port = listener->port;

	if (is_loopback(asked)) {
		if (asked->port == listener->port)
			return refuse(asked, REFUSED_DIRECT_DIAL);
	} else {
		if (ctx->protocol != PROTOCOL_TCP)
			return refuse(asked, REFUSED_NOT_TCP);
		current_generation = generation.lookup(&index);
		if (!current_generation || *current_generation == 0)
			return refuse(asked, REFUSED_NO_GENERATION);
		asked->generation = *current_generation;
		slot = asked->generation & 1;
		asked->region_set = find_region_set(asked, slot);
		if (find_coarse_verdict(asked->region_set, slot) != COARSE_REDIRECT)
			return refuse(asked, REFUSED_REGION_CLASS);
		asked->redirected = 1;
	}

	flow = flow_by_socket.sk_storage_get(ctx->sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!flow)
		return refuse(asked, REFUSED_STORAGE_FULL);
	*flow = *asked;
	count(asked->redirected ? REDIRECTED : LOOPBACK_PASSED);
	return VERDICT_PASS;
}

#endif
