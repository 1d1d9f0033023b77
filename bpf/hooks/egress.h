/* SPDX-License-Identifier: GPL-2.0-or-later */
/* cgroup_skb egress and tc egress: the last lines, on real packets, after all that could still change an address. Only what some
 * verdict covers passes; anything unusual in form is dropped rather than parsed. */
#ifndef ENFORCER_HOOKS_EGRESS_H
#define ENFORCER_HOOKS_EGRESS_H

struct packet {
	struct flow_record to;    /* destination in address, port, family */
	u8 protocol;
	u8 flags;                 /* TCP's */
};

/* Reads the headers. Returns 0 for a packet of plain form: no options, no extension header, no fragment, TCP or UDP, whole. */
static inline int parse_packet(struct __sk_buff *skb, struct packet *packet)
{
	u8 first, header[IPV6_HEADER], ports[4], flags;
	u32 transport;

	if (bpf_skb_load_bytes_relative(skb, 0, &first, 1, BPF_HDR_START_NET))
		return -1;
	if (first == 0x45) {
		if (bpf_skb_load_bytes_relative(skb, 0, header, IPV4_HEADER, BPF_HDR_START_NET))
			return -1;
		/* More fragments, or an offset: bytes 6 and 7 but the "don't fragment" bit. */
		if ((header[6] & 0x3f) || header[7])
			return -1;
		packet->protocol = header[9];
		packet->to.family = FAMILY_IPV4;
		packet->to.address[0] = *(u32 *)(header + 16);
		transport = IPV4_HEADER;
	} else if ((first >> 4) == 6) {
		if (bpf_skb_load_bytes_relative(skb, 0, header, IPV6_HEADER, BPF_HDR_START_NET))
			return -1;
		packet->protocol = header[6];
		packet->to.family = FAMILY_IPV6;
		packet->to.address[0] = *(u32 *)(header + 24);
		packet->to.address[1] = *(u32 *)(header + 28);
		packet->to.address[2] = *(u32 *)(header + 32);
		packet->to.address[3] = *(u32 *)(header + 36);
		transport = IPV6_HEADER;
	} else {
		return -1;
	}
	if (packet->protocol != PROTOCOL_TCP && packet->protocol != PROTOCOL_UDP)
		return -1;
	if (bpf_skb_load_bytes_relative(skb, transport, ports, 4, BPF_HDR_START_NET))
		return -1;
	packet->to.port = *(u16 *)(ports + 2);
	if (packet->protocol == PROTOCOL_TCP) {
		if (bpf_skb_load_bytes_relative(skb, transport + 13, &flags, 1, BPF_HDR_START_NET))
			return -1;
		packet->flags = flags;
	}
	return 0;
}

/* Is the packet's destination a bound UDP socket of the same executor? */
static inline int reaches_own_datagram(struct __sk_buff *skb, const struct flow_record *to)
{
	struct bpf_sock_tuple tuple = {};
	struct bpf_sock *sk;
	struct owner *owner;
	u32 size;
	int own = 0;

	if (to->family == FAMILY_IPV4) {
		tuple.ipv4.daddr = to->address[0];
		tuple.ipv4.dport = to->port;
		size = sizeof(tuple.ipv4);
	} else {
		tuple.ipv6.daddr[3] = to->address[3];
		tuple.ipv6.dport = to->port;
		size = sizeof(tuple.ipv6);
	}
	sk = bpf_sk_lookup_udp(skb, &tuple, size, BPF_F_CURRENT_NETNS, 0);
	if (!sk)
		return 0;
	owner = owner_by_socket.sk_storage_get(sk, 0, 0);
	if (owner)
		own = owner->executor == to->executor;
	bpf_sk_release(sk);
	return own;
}

static inline int covers_direct(const struct flow_record *flow, const struct packet *packet)
{
	return flow && flow->path == PATH_DIRECT && packet->protocol == PROTOCOL_TCP && same_destination(flow, &packet->to);
}

/* TCP within this host: the listener for what was redirected, the executor's own servers, and answers to whoever came in by
 * loopback. A SYN without a judged connect() is nobody's. */
static inline int covers_local_tcp(const struct flow_record *flow, const struct packet *packet, const struct listener *listener)
{
	if (packet->to.port == listener->port)
		return flow && flow->path == PATH_PROXY;
	if (!flow)
		return (packet->flags & (TCP_SYN | TCP_ACK)) != TCP_SYN;
	return flow->path == PATH_LOOPBACK && flow->port == packet->to.port;
}

static inline int covers_local_udp(struct __sk_buff *skb, const struct flow_record *flow, const struct packet *packet,
				   const struct listener *listener, u32 mode)
{
	if (packet->to.port == listener->port)
		return 0;
	if (listener->resolver_port && packet->to.port == listener->resolver_port)
		return 1;
	return mode == MODE_ISOLATED || reaches_own_datagram(skb, &packet->to);
}

static inline int judge_egress(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk;
	struct packet packet = {};
	struct flow_record *flow;
	struct listener *listener;
	struct owner *owner;
	u64 executor = 0;
	u32 mode;

	if (!sk)
		return VERDICT_PASS;
	sk = bpf_sk_fullsock(sk);
	if (!sk)
		return VERDICT_PASS;
	owner = owner_by_socket.sk_storage_get(sk, 0, 0);
	if (owner) {
		executor = owner->executor;
		if (!executor_by_cgroup.lookup(&executor))
			owner = 0;
	}
	if (!owner)
		executor = executor_of_socket(sk);
	if (!executor)
		return VERDICT_PASS;
	packet.to.executor = executor;
	if (parse_packet(skb, &packet))
		return refuse(&packet.to, REFUSED_PACKET_FORM);
	mode = mode_of(executor);
	/* Without an owner the socket is older than its executor and was never judged: its connections end here. */
	if (mode == MODE_REFUSED || !owner)
		return refuse(&packet.to, REFUSED_PACKET);
	packet.to.netns = owner->netns;
	flow = flow_by_socket.sk_storage_get(sk, 0, 0);
	if (!is_loopback(&packet.to)) {
		if (!covers_direct(flow, &packet))
			return refuse(&packet.to, REFUSED_PACKET);
		return is_alive() ? VERDICT_PASS : refuse(&packet.to, REFUSED_STALE);
	}
	listener = find_listener(&packet.to);
	if (!listener)
		return refuse(&packet.to, REFUSED_PACKET);
	if (packet.protocol == PROTOCOL_TCP ? covers_local_tcp(flow, &packet, listener)
					    : covers_local_udp(skb, flow, &packet, listener, mode))
		return VERDICT_PASS;
	return refuse(&packet.to, REFUSED_PACKET);
}

/* At an uplink: what the cgroup hook never sees has a socket all the same (AF_PACKET), and that has a cgroup. */
static inline int judge_uplink(struct __sk_buff *skb)
{
	struct packet packet = {};
	struct flow_record *flow = 0;
	struct bpf_sock *sk;

	packet.to.executor = executor_of_packet(skb);
	if (!packet.to.executor)
		return TC_CONTINUE;
	if (parse_packet(skb, &packet)) {
		refuse(&packet.to, REFUSED_UPLINK);
		return TC_DROP;
	}
	sk = skb->sk;
	if (sk) {
		sk = bpf_sk_fullsock(sk);
		if (sk)
			flow = flow_by_socket.sk_storage_get(sk, 0, 0);
	}
	if (covers_direct(flow, &packet) && is_alive())
		return TC_CONTINUE;
	refuse(&packet.to, REFUSED_UPLINK);
	return TC_DROP;
}

#endif
