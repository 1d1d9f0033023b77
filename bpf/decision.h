/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Pure decisions: no maps, no helpers. tests/bpf compiles this file natively and walks it. */
#ifndef ENFORCER_DECISION_H
#define ENFORCER_DECISION_H

/* 127.0.0.0/8, and 0.0.0.0, which Linux takes for this host. Address in network byte order. */
static inline int is_loopback4(__u32 address)
{
	return address == 0 || (address & bpf_htonl(0xff000000)) == bpf_htonl(0x7f000000);
}

/* ::1, and ::, which Linux takes for this host. */
static inline int is_loopback6(const __u32 address[4])
{
	return !address[0] && !address[1] && !address[2] && (!address[3] || address[3] == bpf_htonl(1));
}

/* ::ffff:a.b.c.d: IPv4 in an IPv6 socket. It reaches connect6 only, and must be judged as IPv4. */
static inline int is_ipv4_mapped(const __u32 address[4])
{
	return !address[0] && !address[1] && address[2] == bpf_htonl(0x0000ffff);
}

static inline int is_loopback(const struct flow_record *flow)
{
	return flow->family == FAMILY_IPV4 ? is_loopback4(flow->address[0]) : is_loopback6(flow->address);
}

/* The null address: sendmsg() on a connected socket, which the hooks see as family's zero address and port 0. No real
 * destination has port 0. */
static inline int is_null(const struct flow_record *asked)
{
	return !asked->port && !asked->address[0] && !asked->address[1] && !asked->address[2] && !asked->address[3];
}

static inline int same_destination(const struct flow_record *flow, const struct flow_record *packet)
{
	return flow->family == packet->family && flow->port == packet->port && flow->address[0] == packet->address[0] &&
	       flow->address[1] == packet->address[1] && flow->address[2] == packet->address[2] &&
	       flow->address[3] == packet->address[3];
}

/* What an executor may ask of socket(): TCP and UDP. SOCK_STREAM with another protocol is MPTCP, SCTP, SMC. */
static inline int is_allowed_socket(__u32 type, __u32 protocol)
{
	if (type == LINUX_SOCK_STREAM)
		return protocol == 0 || protocol == PROTOCOL_TCP;
	return type == LINUX_SOCK_DGRAM && (protocol == 0 || protocol == PROTOCOL_UDP);
}

/* Options by which a packet leaves for another place, or in another form, than the one that was judged.
 * Numbers: include/uapi/linux/in.h, in6.h, tcp.h, asm-generic/socket.h. */
static inline int is_refused_option(int level, int option)
{
	switch (level) {
	case LEVEL_IP:
		return option == 3 /* IP_HDRINCL */ || option == 4 /* IP_OPTIONS */ || option == 19 /* IP_TRANSPARENT */ ||
		       option == 32 /* IP_MULTICAST_IF */ || option == 50 /* IP_UNICAST_IF */;
	case LEVEL_IPV6:
		return (option >= 3 && option <= 6) /* IPV6_2292HOPOPTS to IPV6_2292PKTOPTIONS */ ||
		       option == 17 /* IPV6_MULTICAST_IF */ ||
		       option == 36 /* IPV6_HDRINCL */ || option == 54 /* IPV6_HOPOPTS */ || option == 55 /* IPV6_RTHDRDSTOPTS */ ||
		       option == 57 /* IPV6_RTHDR */ || option == 59 /* IPV6_DSTOPTS */ || option == 75 /* IPV6_TRANSPARENT */ ||
		       option == 76 /* IPV6_UNICAST_IF */;
	case LEVEL_SOCKET:
		/* Who steers a group of sockets on one port chooses another receiver than the one that was looked up. */
		return option == 25 /* SO_BINDTODEVICE */ || option == 36 /* SO_MARK */ || option == 62 /* SO_BINDTOIFINDEX */ ||
		       option == 51 /* SO_ATTACH_REUSEPORT_CBPF */ || option == 52 /* SO_ATTACH_REUSEPORT_EBPF */;
	case LEVEL_TCP:
		return option == 19 /* TCP_REPAIR */;
	}
	return 0;
}

#endif
