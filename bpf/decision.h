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

#endif
