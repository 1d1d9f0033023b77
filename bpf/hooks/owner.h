/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Whose a socket is: the executor whose cgroup the socket was created in. Decided once, at its creation, and kept with the socket;
 * what it accepts inherits it. cgroup sock_create, bind4/6 and post_bind4/6 are here too. */
#ifndef ENFORCER_HOOKS_OWNER_H
#define ENFORCER_HOOKS_OWNER_H

/* Fills in who asks. Returns the mode of the executor that the socket of a sock_addr hook belongs to, or -1 when it is nobody's.
 * A socket older than its executor gets its owner here, by the task that uses it; the last line asks the socket's own cgroup.
 * `*kept`: what is kept of the socket; null where there is no memory for it, and then the mode is a refusal. */
static inline int claim(struct bpf_sock_addr *ctx, struct flow_record *asked, struct owner **kept)
{
	struct owner *owner = owner_by_socket.sk_storage_get(ctx->sk, 0, 0);
	struct executor *executor = 0;

	asked->netns = bpf_get_netns_cookie(ctx);
	asked->cookie = bpf_get_socket_cookie(ctx);
	asked->pid = bpf_get_current_pid_tgid() >> 32;
	asked->uid = bpf_get_current_uid_gid();
	if (owner) {
		u64 id = owner->executor;
		executor = executor_by_cgroup.lookup(&id);
		asked->executor = id;
		/* Made while these programs took over from others: labelled by a hook that does not see the namespace. */
		if (!owner->netns)
			owner->netns = asked->netns;
	}
	if (!executor) {
		u64 id = executor_of_task();
		if (!id)
			return -1;
		asked->executor = id;
		owner = owner_by_socket.sk_storage_get(ctx->sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
		if (!owner)
			return MODE_REFUSED;
		owner->executor = id;
		owner->netns = asked->netns;
		executor = executor_by_cgroup.lookup(&id);
	}
	*kept = owner;
	return executor ? executor->mode : MODE_REFUSED;
}

/* What the next answer of the resolver should seem to come from. */
static inline void remember_asked(struct owner *owner, const struct flow_record *asked)
{
	owner->asked[0] = asked->address[0];
	owner->asked[1] = asked->address[1];
	owner->asked[2] = asked->address[2];
	owner->asked[3] = asked->address[3];
	owner->asked_port = asked->port;
	owner->asked_family = asked->family;
}

static inline struct listener *find_listener(const struct flow_record *asked)
{
	struct place place = { .netns = asked->netns, .executor = asked->executor };

	return listener_by_place.lookup(&place);
}

/* A datagram for the resolver, whoever it names. */
static inline int is_question(const struct flow_record *asked, const struct listener *listener)
{
	return asked->port == bpf_htons(PORT_DNS) && listener->resolver_port;
}

/* The port of the listener or of the resolver itself. */
static inline int is_ours(const struct flow_record *asked, const struct listener *listener)
{
	return asked->port == listener->port || (listener->resolver_port && asked->port == listener->resolver_port);
}

/* Does a socket of this executor listen there? For TCP the listener, for UDP the bound socket, as the kernel itself finds it, so
 * that a bind() beside a service of the host's counts for nothing. A connected UDP socket is found by its peer, which is this
 * socket; where that is bound to no address, the one that loopback uses must do. The last line sees the packet's own. */
static inline int reaches_own(struct bpf_sock_addr *ctx, const struct flow_record *asked)
{
	struct bpf_sock_tuple tuple = {};
	struct bpf_sock *sk = ctx->sk;
	struct owner *owner;
	u16 port = sk ? bpf_htons((u16)sk->src_port) : 0;
	u32 bound = sk ? sk->src_ip4 : 0;
	u32 size;
	int own = 0;

	if (asked->family == FAMILY_IPV4) {
		tuple.ipv4.saddr = bound ? bound : bpf_htonl(0x7f000001);
		tuple.ipv4.sport = port;
		tuple.ipv4.daddr = asked->address[0] ? asked->address[0] : bpf_htonl(0x7f000001);
		tuple.ipv4.dport = asked->port;
		size = sizeof(tuple.ipv4);
	} else {
		tuple.ipv6.saddr[3] = bpf_htonl(1);
		tuple.ipv6.sport = port;
		tuple.ipv6.daddr[3] = bpf_htonl(1);
		tuple.ipv6.dport = asked->port;
		size = sizeof(tuple.ipv6);
	}
	if (ctx->protocol == PROTOCOL_TCP)
		sk = bpf_sk_lookup_tcp(ctx, &tuple, size, BPF_F_CURRENT_NETNS, 0);
	else
		sk = bpf_sk_lookup_udp(ctx, &tuple, size, BPF_F_CURRENT_NETNS, 0);
	if (!sk)
		return 0;
	owner = owner_by_socket.sk_storage_get(sk, 0, 0);
	if (owner)
		own = owner->executor == asked->executor;
	bpf_sk_release(sk);
	return own;
}

/* socket(): TCP and UDP only. The kernel asks for AF_INET and AF_INET6 alone. */
static inline int judge_socket(struct bpf_sock *ctx)
{
	struct flow_record asked = {};
	struct owner *owner;

	asked.executor = executor_of_task();
	if (!asked.executor)
		return VERDICT_PASS;
	asked.netns = bpf_get_netns_cookie(ctx);
	asked.pid = bpf_get_current_pid_tgid() >> 32;
	asked.uid = bpf_get_current_uid_gid();
	if (!is_allowed_socket(ctx->type, ctx->protocol))
		return refuse(&asked, REFUSED_SOCKET_TYPE);
	owner = owner_by_socket.sk_storage_get(ctx, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!owner)
		return refuse(&asked, REFUSED_STORAGE_FULL);
	owner->executor = asked.executor;
	owner->netns = asked.netns;
	return VERDICT_PASS;
}

/* Nobody may listen where the proxy or the resolver does, nor while neither lives: it would receive what others send.
 * `port` in network byte order. */
static inline int judge_bind(struct flow_record *asked, u16 port)
{
	struct guarded_port key = { .netns = asked->netns, .port = port };

	if (port && guarded_ports.lookup(&key)) {
		asked->port = port;
		return refuse(asked, REFUSED_BIND);
	}
	return VERDICT_PASS;
}

static inline int judge_bind_asked(struct bpf_sock_addr *ctx)
{
	struct flow_record asked = {};
	struct owner *owner = 0;

	if (claim(ctx, &asked, &owner) < 0)
		return VERDICT_PASS;
	return judge_bind(&asked, ctx->user_port);
}

/* The port that bind() came to, also when the kernel chose it. */
static inline int judge_bind_done(struct bpf_sock *ctx)
{
	struct flow_record asked = {};

	asked.executor = executor_of_task();
	if (!asked.executor)
		return VERDICT_PASS;
	asked.netns = bpf_get_netns_cookie(ctx);
	asked.pid = bpf_get_current_pid_tgid() >> 32;
	asked.uid = bpf_get_current_uid_gid();
	return judge_bind(&asked, bpf_htons(ctx->src_port));
}

#endif
