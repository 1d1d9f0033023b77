/* SPDX-License-Identifier: GPL-2.0-or-later */
/* cgroup_skb egress and tc egress: the last lines, on real packets, after all that could still change an address. Only what some
 * verdict covers passes; anything unusual in form is dropped rather than parsed. */
#ifndef ENFORCER_HOOKS_EGRESS_H
#define ENFORCER_HOOKS_EGRESS_H

struct packet {
	struct flow_record to;    /* destination in address, port, family */
	u32 source[4];
	u16 source_port;
	u8 protocol;
};

static inline u32 header_size(const struct packet *packet)
{
	return packet->to.family == FAMILY_IPV4 ? IPV4_HEADER : IPV6_HEADER;
}

/* Does this TCP packet of plain form ask for a connection? What cannot be read does. */
static inline int opens_connection(struct __sk_buff *skb, const struct packet *packet)
{
	u8 flags;

	if (bpf_skb_load_bytes_relative(skb, header_size(packet) + TCP_FLAGS, &flags, 1, BPF_HDR_START_NET))
		return 1;
	return (flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
}

/* Reads the headers. Returns 0 for a packet of plain form: no options, no extension header, no fragment, TCP or UDP, whole. */
static inline int parse_packet(struct __sk_buff *skb, struct packet *packet)
{
	u8 header[IPV6_HEADER + UDP_HEADER], *ports;

	/* The least that any packet has that may pass: IPv4 without options, and UDP. */
	if (bpf_skb_load_bytes_relative(skb, 0, header, IPV4_HEADER + UDP_HEADER, BPF_HDR_START_NET))
		return -1;
	if (header[0] == 0x45) {
		/* More fragments, or an offset: bytes 6 and 7 but the "don't fragment" bit. */
		if ((header[6] & 0x3f) || header[7])
			return -1;
		packet->protocol = header[9];
		packet->to.family = FAMILY_IPV4;
		packet->source[0] = *(u32 *)(header + 12);
		packet->to.address[0] = *(u32 *)(header + 16);
		ports = header + IPV4_HEADER;
	} else if ((header[0] >> 4) == 6) {
		if (bpf_skb_load_bytes_relative(skb, 0, header, sizeof(header), BPF_HDR_START_NET))
			return -1;
		packet->protocol = header[6];
		packet->to.family = FAMILY_IPV6;
		packet->source[0] = *(u32 *)(header + 8);
		packet->source[1] = *(u32 *)(header + 12);
		packet->source[2] = *(u32 *)(header + 16);
		packet->source[3] = *(u32 *)(header + 20);
		packet->to.address[0] = *(u32 *)(header + 24);
		packet->to.address[1] = *(u32 *)(header + 28);
		packet->to.address[2] = *(u32 *)(header + 32);
		packet->to.address[3] = *(u32 *)(header + 36);
		ports = header + IPV6_HEADER;
	} else {
		return -1;
	}
	if (packet->protocol == PROTOCOL_TCP ? skb->len < header_size(packet) + TCP_HEADER : packet->protocol != PROTOCOL_UDP)
		return -1;
	packet->source_port = *(u16 *)ports;
	packet->to.port = *(u16 *)(ports + 2);
	return 0;
}

/* The executor whose socket in this namespace will receive the packet, found as the kernel will find it; 0 for nobody's. */
static inline u64 receiver_of(struct __sk_buff *skb, const struct packet *packet)
{
	struct bpf_sock_tuple tuple = {};
	struct bpf_sock *sk;
	struct owner *owner;
	u64 executor = 0;
	u32 size;

	if (packet->to.family == FAMILY_IPV4) {
		tuple.ipv4.saddr = packet->source[0];
		tuple.ipv4.daddr = packet->to.address[0];
		tuple.ipv4.sport = packet->source_port;
		tuple.ipv4.dport = packet->to.port;
		size = sizeof(tuple.ipv4);
	} else {
		/* Both ends of loopback: ::1, or the packet does not come back. */
		tuple.ipv6.saddr[0] = packet->source[0];
		tuple.ipv6.saddr[1] = packet->source[1];
		tuple.ipv6.saddr[2] = packet->source[2];
		tuple.ipv6.saddr[3] = packet->source[3];
		tuple.ipv6.daddr[3] = packet->to.address[3];
		tuple.ipv6.sport = packet->source_port;
		tuple.ipv6.dport = packet->to.port;
		size = sizeof(tuple.ipv6);
	}
	if (packet->protocol == PROTOCOL_TCP)
		sk = bpf_sk_lookup_tcp(skb, &tuple, size, BPF_F_CURRENT_NETNS, 0);
	else
		sk = bpf_sk_lookup_udp(skb, &tuple, size, BPF_F_CURRENT_NETNS, 0);
	if (!sk)
		return 0;
	owner = owner_by_socket.sk_storage_get(sk, 0, 0);
	if (owner)
		executor = owner->executor;
	bpf_sk_release(sk);
	return executor;
}

static inline int covers_direct(const struct flow_record *flow, const struct packet *packet)
{
	return flow && flow->path == PATH_DIRECT && packet->protocol == PROTOCOL_TCP && same_destination(flow, &packet->to);
}

/* TCP within this host: the listener for what was redirected, the executor's own servers, and answers to whoever came in by
 * loopback. A SYN is looked at again: where several sockets share the port, this one packet decides who gets the connection. */
static inline int covers_local_tcp(struct __sk_buff *skb, const struct flow_record *flow, const struct packet *packet,
				   const struct listener *listener, u32 mode)
{
	int opens = opens_connection(skb, packet);

	if (!flow)
		return !opens && packet->to.port != listener->port;
	if (packet->to.port == listener->port)
		return flow->path == PATH_PROXY && (!opens || !receiver_of(skb, packet));
	if (flow->path != PATH_LOOPBACK || flow->port != packet->to.port)
		return 0;
	return !opens || mode == MODE_ISOLATED || receiver_of(skb, packet) == packet->to.executor;
}

static inline int covers_local_udp(struct __sk_buff *skb, const struct packet *packet, const struct listener *listener, u32 mode)
{
	if (packet->to.port == listener->port)
		return 0;
	if (listener->resolver_port && packet->to.port == listener->resolver_port)
		return !receiver_of(skb, packet);
	return mode == MODE_ISOLATED || receiver_of(skb, packet) == packet->to.executor;
}

static inline int judge_egress(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk;
	struct packet packet = {};
	struct executor *known = 0;
	struct flow_record *flow;
	struct listener *listener;
	struct owner *owner;
	u64 executor = 0;

	if (!sk)
		return VERDICT_PASS;
	sk = bpf_sk_fullsock(sk);
	if (!sk)
		return VERDICT_PASS;
	owner = owner_by_socket.sk_storage_get(sk, 0, 0);
	if (owner) {
		executor = owner->executor;
		known = executor_by_cgroup.lookup(&executor);
	}
	if (!known)
		executor = executor_of_socket(sk);
	if (!executor)
		return VERDICT_PASS;
	packet.to.executor = executor;
	if (parse_packet(skb, &packet))
		return refuse(&packet.to, REFUSED_PACKET_FORM);
	/* Without an owner the socket is older than its executor and was never judged: its connections end here. */
	if (!owner || !known || known->mode == MODE_REFUSED)
		return refuse(&packet.to, REFUSED_PACKET);
	packet.to.netns = owner->netns;
	flow = flow_of(owner, bpf_get_socket_cookie(skb));
	if (!is_loopback(&packet.to)) {
		if (!covers_direct(flow, &packet))
			return refuse(&packet.to, REFUSED_PACKET);
		return is_alive(bpf_ktime_get_boot_ns()) ? VERDICT_PASS : refuse(&packet.to, REFUSED_STALE);
	}
	/* A loopback address is no loopback once the sender names an interface (IP_PKTINFO): it would leave for the next hop. */
	listener = find_listener(&packet.to);
	if (!listener || skb->ifindex != INTERFACE_LOOPBACK)
		return refuse(&packet.to, REFUSED_PACKET);
	if (packet.protocol == PROTOCOL_TCP ? covers_local_tcp(skb, flow, &packet, listener, known->mode)
					    : covers_local_udp(skb, &packet, listener, known->mode))
		return VERDICT_PASS;
	return refuse(&packet.to, REFUSED_PACKET);
}

/* At an uplink: what the cgroup hook never sees has a socket all the same (AF_PACKET), and that has a cgroup. */
static inline int judge_uplink(struct __sk_buff *skb)
{
	struct packet packet = {};
	struct flow_record *flow = 0;
	struct owner *owner = 0;
	struct bpf_sock *sk;

	sk = skb->sk;
	if (sk) {
		sk = bpf_sk_fullsock(sk);
		if (sk) {
			owner = owner_by_socket.sk_storage_get(sk, 0, 0);
			flow = flow_of(owner, bpf_get_socket_cookie(skb));
			/* The cgroup hook has just judged this very packet: it covers nothing else of such a socket. */
			if (flow && flow->path == PATH_DIRECT)
				return TC_CONTINUE;
		}
	}
	packet.to.executor = executor_of_packet(skb);
	/* A socket from outside that was given to the executor, or found in it when it was taken over. */
	if (!packet.to.executor && owner) {
		u64 id = owner->executor;
		if (executor_by_cgroup.lookup(&id))
			packet.to.executor = id;
	}
	if (!packet.to.executor)
		return TC_CONTINUE;
	/* Nothing else may leave here; what can be read of it is for the record. */
	if (parse_packet(skb, &packet))
		packet.to.family = 0;
	refuse(&packet.to, REFUSED_UPLINK);
	return TC_DROP;
}

#endif
