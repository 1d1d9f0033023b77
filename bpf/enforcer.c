/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The one unit BCC compiles. The loader inlines the quoted includes first, as BCC makes programs only of functions in its main
 * file. Entry points at the bottom; one per attach type, since BCC caches functions by name. */
#include <uapi/linux/bpf.h>

#define bpf_htonl(x) __builtin_bswap32(x)
#define bpf_ntohl(x) __builtin_bswap32(x)
#define bpf_htons(x) __builtin_bswap16(x)
#define bpf_ntohs(x) __builtin_bswap16(x)
#define barrier() asm volatile("" ::: "memory")
#define BPF_TABLE_TRIE_SHAPE(name, key_type) BPF_F_TABLE("lpm_trie", key_type, u32, name, TEMPLATE_ENTRIES, BPF_F_NO_PREALLOC)

#include "abi.h"
#include "consts.h"
#include "maps.h"
#include "helpers.h"
#include "decision.h"
#include "hooks/owner.h"
#include "hooks/connect.h"
#include "hooks/datagram.h"
#include "hooks/sockops.h"
#include "hooks/getsockopt.h"
#include "hooks/getpeername.h"
#include "hooks/setsockopt.h"
#include "hooks/egress.h"
#include "hooks/cgroups.h"
#include "hooks/lsm.h"

static inline void read_address4(struct bpf_sock_addr *ctx, struct flow_record *asked)
{
	asked->family = FAMILY_IPV4;
	asked->address[0] = ctx->user_ip4;
	asked->port = ctx->user_port;
}

/* An IPv4-mapped address is judged as the IPv4 address it is. */
static inline void read_address6(struct bpf_sock_addr *ctx, struct flow_record *asked)
{
	asked->address[0] = ctx->user_ip6[0];
	asked->address[1] = ctx->user_ip6[1];
	asked->address[2] = ctx->user_ip6[2];
	asked->address[3] = ctx->user_ip6[3];
	asked->port = ctx->user_port;
	asked->family = FAMILY_IPV6;
	if (is_ipv4_mapped(asked->address)) {
		asked->family = FAMILY_IPV4;
		asked->address[0] = asked->address[3];
		asked->address[1] = asked->address[2] = asked->address[3] = 0;
	}
}

static inline void write_address4(struct bpf_sock_addr *ctx, u32 address, u16 port)
{
	ctx->user_ip4 = address;
	barrier();
	ctx->user_port = port;
}

/* An IPv4 address is written as mapped: the socket's family stays. */
static inline void write_address6(struct bpf_sock_addr *ctx, u8 family, const u32 address[4], u16 port)
{
	ctx->user_ip6[0] = family == FAMILY_IPV6 ? address[0] : 0;
	barrier();
	ctx->user_ip6[1] = family == FAMILY_IPV6 ? address[1] : 0;
	barrier();
	ctx->user_ip6[2] = family == FAMILY_IPV6 ? address[2] : bpf_htonl(0x0000ffff);
	barrier();
	ctx->user_ip6[3] = family == FAMILY_IPV6 ? address[3] : address[0];
	barrier();
	ctx->user_port = port;
}

static inline void write_loopback6(struct bpf_sock_addr *ctx, u8 family, u16 port)
{
	u32 four[4] = { bpf_htonl(0x7f000001) }, six[4] = { 0, 0, 0, bpf_htonl(1) };

	write_address6(ctx, family, family == FAMILY_IPV4 ? four : six, port);
}

int connect4(struct bpf_sock_addr *ctx)
{
	struct flow_record asked = {};
	u16 port = 0;
	int verdict;

	read_address4(ctx, &asked);
	verdict = judge_connect(ctx, &asked, &port);
	if (verdict == VERDICT_PASS && is_rewritten(&asked))
		write_address4(ctx, bpf_htonl(0x7f000001), port);
	return verdict;
}

int connect6(struct bpf_sock_addr *ctx)
{
	struct flow_record asked = {};
	u16 port = 0;
	int verdict;

	read_address6(ctx, &asked);
	verdict = judge_connect(ctx, &asked, &port);
	if (verdict == VERDICT_PASS && is_rewritten(&asked))
		write_loopback6(ctx, asked.family, port);
	return verdict;
}

int sendmsg4(struct bpf_sock_addr *ctx)
{
	struct flow_record asked = {};
	u16 port = 0;
	int verdict;

	read_address4(ctx, &asked);
	verdict = judge_datagram(ctx, &asked, &port);
	if (verdict == VERDICT_PASS && port)
		write_address4(ctx, bpf_htonl(0x7f000001), port);
	return verdict;
}

int sendmsg6(struct bpf_sock_addr *ctx)
{
	struct flow_record asked = {};
	u16 port = 0;
	int verdict;

	read_address6(ctx, &asked);
	verdict = judge_datagram(ctx, &asked, &port);
	if (verdict == VERDICT_PASS && port)
		write_loopback6(ctx, asked.family, port);
	return verdict;
}

int recvmsg4(struct bpf_sock_addr *ctx)
{
	struct owner *owner = owner_of_answer(ctx);

	if (owner && owner->asked_family == FAMILY_IPV4)
		write_address4(ctx, owner->asked[0], owner->asked_port);
	return 1;
}

int recvmsg6(struct bpf_sock_addr *ctx)
{
	struct owner *owner = owner_of_answer(ctx);

	if (owner)
		write_address6(ctx, owner->asked_family, owner->asked, owner->asked_port);
	return 1;
}

int sock_create(struct bpf_sock *ctx)
{
	return judge_socket(ctx);
}

int bind4(struct bpf_sock_addr *ctx)
{
	return judge_bind_asked(ctx);
}

int bind6(struct bpf_sock_addr *ctx)
{
	return judge_bind_asked(ctx);
}

int post_bind4(struct bpf_sock *ctx)
{
	return judge_bind_done(ctx);
}

int post_bind6(struct bpf_sock *ctx)
{
	return judge_bind_done(ctx);
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

int setsockopt(struct bpf_sockopt *ctx)
{
	return judge_option(ctx);
}

int getpeername4(struct bpf_sock_addr *ctx)
{
	struct flow_record *flow = flow_of_asker(ctx);

	if (flow)
		write_address4(ctx, flow->address[0], flow->port);
	return 1;
}

int getpeername6(struct bpf_sock_addr *ctx)
{
	struct flow_record *flow = flow_of_asker(ctx);

	if (flow)
		write_address6(ctx, flow->family, flow->address, flow->port);
	return 1;
}

int egress(struct __sk_buff *skb)
{
	return judge_egress(skb);
}

int uplink(struct __sk_buff *skb)
{
	return judge_uplink(skb);
}

int cgroup_mkdir(struct tracepoint__cgroup__cgroup_mkdir *args)
{
	/* Hierarchy 0 is cgroup v2; others have no say. */
	if (args->root == 0)
		on_cgroup_made(args->id, (const char *)args + (args->data_loc_path & 0xffff));
	return 0;
}

int cgroup_rmdir(struct tracepoint__cgroup__cgroup_rmdir *args)
{
	if (args->root == 0)
		on_cgroup_gone(args->id);
	return 0;
}

int cgroup_attach_task(struct tracepoint__cgroup__cgroup_attach_task *args)
{
	if (args->dst_root == 0)
		on_task_moved(args->dst_id, (const char *)args + (args->data_loc_dst_path & 0xffff), args->pid);
	return 0;
}

int sched_process_fork(struct tracepoint__sched__sched_process_fork *args)
{
	on_task_forked(args->child_pid);
	return 0;
}

int sched_process_exit(struct tracepoint__sched__sched_process_exit *args)
{
	u32 pid = args->pid;

	governed_tasks.delete(&pid);
	return 0;
}

LSM_PROBE(socket_create, int family, int type, int protocol, int kern)
{
	return judge_family(family, protocol, kern);
}

LSM_PROBE(socket_post_create, struct socket *sock, int family, int type, int protocol, int kern)
{
	return on_socket_made(sock, kern);
}

LSM_PROBE(unix_stream_connect, struct sock *sock, struct sock *other, struct sock *newsk)
{
	return judge_unix_connect(other, newsk);
}

LSM_PROBE(unix_may_send, struct socket *sock, struct socket *other)
{
	return judge_unix_datagram(sock, other);
}

LSM_PROBE(socket_connect, struct socket *sock, struct sockaddr *address, int length)
{
	return judge_use(sock, 1);
}

LSM_PROBE(socket_sendmsg, struct socket *sock, struct msghdr *message, int size)
{
	return judge_use(sock, message->msg_name != 0);
}

LSM_PROBE(file_receive, struct file *file)
{
	return judge_received(file);
}

LSM_PROBE(file_permission, struct file *file, int mask)
{
	return mask & FILE_WRITE ? judge_written(file) : 0;
}

LSM_PROBE(task_alloc, struct task_struct *task, unsigned long clone_flags)
{
	return on_task_made(task);
}

LSM_PROBE(bprm_check_security, struct linux_binprm *program)
{
	return on_program_started();
}

LSM_PROBE(ptrace_access_check, struct task_struct *child, unsigned int mode)
{
	return judge_trace(child, mode);
}

LSM_PROBE(task_kill, struct task_struct *task, struct kernel_siginfo *info, int signal, const struct cred *sender)
{
	return judge_signal(task, signal, sender);
}

LSM_PROBE(msg_queue_alloc_security, struct kern_ipc_perm *object)
{
	return on_ipc_made(object);
}

LSM_PROBE(shm_alloc_security, struct kern_ipc_perm *object)
{
	return on_ipc_made(object);
}

LSM_PROBE(sem_alloc_security, struct kern_ipc_perm *object)
{
	return on_ipc_made(object);
}

LSM_PROBE(msg_queue_free_security, struct kern_ipc_perm *object)
{
	return on_ipc_gone(object);
}

LSM_PROBE(shm_free_security, struct kern_ipc_perm *object)
{
	return on_ipc_gone(object);
}

LSM_PROBE(sem_free_security, struct kern_ipc_perm *object)
{
	return on_ipc_gone(object);
}

LSM_PROBE(ipc_permission, struct kern_ipc_perm *object, int flag)
{
	return judge_ipc(object);
}

LSM_PROBE(key_permission, void *key, const struct cred *credentials, int need)
{
	return judge_key(need);
}

LSM_PROBE(file_ioctl, struct file *file, unsigned int command, unsigned long argument)
{
	return judge_terminal(command);
}

LSM_PROBE(file_ioctl_compat, struct file *file, unsigned int command, unsigned long argument)
{
	return judge_terminal(command);
}

LSM_PROBE(bpf, int command, union bpf_attr *attributes, unsigned int size)
{
	return judge_bpf();
}
