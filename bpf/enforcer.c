/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The one unit BCC compiles. The loader inlines the quoted includes first, as BCC makes programs only of functions in its main
 * file. Entry points at the bottom; one per attach type, since BCC caches functions by name. */
#include <uapi/linux/bpf.h>

#define bpf_htonl(x) __builtin_bswap32(x)
#define bpf_ntohl(x) __builtin_bswap32(x)
#define bpf_htons(x) __builtin_bswap16(x)
#define bpf_ntohs(x) __builtin_bswap16(x)
#define barrier() asm volatile("" ::: "memory")
#define BPF_TABLE_TRIE_SHAPE(name, key_type) BPF_F_TABLE("lpm_trie", key_type, u32, name, TEMPLATE_PREFIXES, BPF_F_NO_PREALLOC)

#include "abi.h"
#include "consts.h"
#include "maps.h"
#include "helpers.h"
#include "decision.h"
#include "hooks/connect.h"
#include "hooks/sockops.h"
#include "hooks/getsockopt.h"
#include "hooks/getpeername.h"

int connect4(struct bpf_sock_addr *ctx)
{
	struct flow_record asked = {};
	u16 listener_port = 0;
	int verdict;

	asked.family = FAMILY_IPV4;
	asked.address[0] = ctx->user_ip4;
	asked.port = ctx->user_port;
	verdict = judge_connect(ctx, &asked, &listener_port);
	if (verdict == VERDICT_PASS && asked.redirected) {
		ctx->user_ip4 = bpf_htonl(0x7f000001);
		barrier();
		ctx->user_port = listener_port;
	}
	return verdict;
}

int connect6(struct bpf_sock_addr *ctx)
{
	struct flow_record asked = {};
	u16 listener_port = 0;
	int verdict;

	asked.address[0] = ctx->user_ip6[0];
	asked.address[1] = ctx->user_ip6[1];
	asked.address[2] = ctx->user_ip6[2];
	asked.address[3] = ctx->user_ip6[3];
	asked.port = ctx->user_port;
	asked.family = FAMILY_IPV6;
	if (is_ipv4_mapped(asked.address)) {
		asked.family = FAMILY_IPV4;
		asked.address[0] = asked.address[3];
		asked.address[1] = asked.address[2] = asked.address[3] = 0;
	}
	verdict = judge_connect(ctx, &asked, &listener_port);
	if (verdict == VERDICT_PASS && asked.redirected) {
		/* Stay in the socket's family: ::ffff:127.0.0.1 for a mapped address, ::1 otherwise. */
		ctx->user_ip6[0] = 0;
		barrier();
		ctx->user_ip6[1] = 0;
		barrier();
		ctx->user_ip6[2] = asked.family == FAMILY_IPV4 ? bpf_htonl(0x0000ffff) : 0;
		barrier();
		ctx->user_ip6[3] = asked.family == FAMILY_IPV4 ? bpf_htonl(0x7f000001) : bpf_htonl(1);
		barrier();
		ctx->user_port = listener_port;
	}
	return verdict;
}

int sockops(struct bpf_sock_ops *ctx)
{
	if (ctx->op == BPF_SOCK_OPS_TCP_CONNECT_CB || ctx->op == BPF_SOCK_OPS_STATE_CB)
		track_connection(ctx);
	return 1;
}

int getsockopt(struct bpf_sockopt *ctx)
{
	return answer_original_destination(ctx);
}

int getpeername4(struct bpf_sock_addr *ctx)
{
	struct flow_record *flow = flow_of_asker(ctx);

	if (flow) {
		ctx->user_ip4 = flow->address[0];
		barrier();
		ctx->user_port = flow->port;
	}
	return 1;
}

int getpeername6(struct bpf_sock_addr *ctx)
{
	struct flow_record *flow = flow_of_asker(ctx);

	if (flow && flow->family == FAMILY_IPV6) {
		ctx->user_ip6[0] = flow->address[0];
		barrier();
		ctx->user_ip6[1] = flow->address[1];
		barrier();
		ctx->user_ip6[2] = flow->address[2];
		barrier();
		ctx->user_ip6[3] = flow->address[3];
		barrier();
		ctx->user_port = flow->port;
	} else if (flow) {
		ctx->user_ip6[0] = 0;
		barrier();
		ctx->user_ip6[1] = 0;
		barrier();
		ctx->user_ip6[2] = bpf_htonl(0x0000ffff);
		barrier();
		ctx->user_ip6[3] = flow->address[0];
		barrier();
		ctx->user_port = flow->port;
	}
	return 1;
}
