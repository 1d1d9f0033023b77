/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Security hooks, where the kernel takes them: what a socket, a process or a file is that no cgroup hook sees. They judge the
 * current task alone; whoever is not governed, and the kernel's own sockets, pass. Kernels without them lose only these. */
#ifndef ENFORCER_HOOKS_LSM_H
#define ENFORCER_HOOKS_LSM_H

/* The kernel's own, as far as they are read here: headers that have them whole take a minute to compile. The verifier knows the
 * real ones, and refuses a program that finds anything but these pointers at their places. */
struct socket {
	u64 before[2];
	void *file;               /* null: a socket of the kernel's own */
	struct sock *sk;
};

/* TASK_GROUP_LEADER: the loader asks the running kernel. */
struct task_struct {
	u8 before[TASK_GROUP_LEADER];
	struct task_struct *group_leader;
};

struct sockaddr;
struct linux_binprm;
struct cred;
struct kernel_siginfo;
struct kern_ipc_perm;

struct msghdr {
	void *msg_name;           /* where to, or null: where the socket is connected to */
};

/* Counts and queues the refusal. For callers to end with. */
static inline int deny(u64 executor, int reason)
{
	struct flow_record asked = {};

	asked.executor = executor;
	asked.pid = bpf_get_current_pid_tgid() >> 32;
	asked.uid = bpf_get_current_uid_gid();
	refuse(&asked, reason);
	return -LINUX_EPERM;
}

static inline u64 executor_of_sock(struct sock *sk)
{
	struct owner *owner = sk ? owner_by_socket.sk_storage_get(sk, 0, 0) : 0;

	return owner ? owner->executor : 0;
}

/* Returns 0 when there is no memory for it. */
static inline int label(struct sock *sk, u64 executor)
{
	struct owner *owner = sk ? owner_by_socket.sk_storage_get(sk, 0, BPF_SK_STORAGE_GET_F_CREATE) : 0;

	if (!owner)
		return 0;
	owner->executor = executor;
	return 1;
}

/* Nobody's, as far as is known: of somebody outside; or older than these programs, until user space has labelled all that is. The
 * programs before these know that, and stay in force until then. */
static inline int may_be_older(u64 owner)
{
	int index = SECURITY_SETTLED;
	u64 *settled = owner ? 0 : security.lookup(&index);

	return settled && !*settled;
}

/* Is it a socket that the configuration lets executors speak to? Labels of an earlier configuration do not count. */
static inline int is_for_anyone(struct sock *sk)
{
	int index = SECURITY_EPOCH;
	u64 *epoch = security.lookup(&index);
	struct owner *owner = sk ? owner_by_socket.sk_storage_get(sk, 0, 0) : 0;

	return owner && epoch && owner->executor == OWNER_ANYONE && owner->netns == *epoch;
}

static inline int is_allowed_family(int family, int protocol)
{
	if (family == LINUX_AF_INET || family == LINUX_AF_INET6 || family == LINUX_AF_UNIX)
		return 1;
	return family == LINUX_AF_NETLINK &&
	       (protocol == NETLINK_PROTOCOL_ROUTE || protocol == NETLINK_PROTOCOL_SOCK_DIAG || protocol == NETLINK_PROTOCOL_AUDIT ||
		protocol == NETLINK_PROTOCOL_UEVENT || protocol == NETLINK_PROTOCOL_GENERIC);
}

/* socket() of any family. The types and protocols of IP are cgroup sock_create's to judge. */
static inline int judge_family(int family, int protocol, int kern)
{
	u64 executor = kern ? 0 : executor_of_task();

	if (!executor || is_allowed_family(family, protocol))
		return 0;
	return deny(executor, REFUSED_FAMILY);
}

/* A socket is made. IP ones have their owner from cgroup sock_create already, unless that is of the programs before these. */
static inline int on_socket_made(struct socket *sock, int kern)
{
	u64 executor = kern ? 0 : executor_of_task();

	if (!executor)
		return 0;
	return label(sock->sk, executor) ? 0 : deny(executor, REFUSED_STORAGE_FULL);
}

/* connect() of a stream. `accepted` is what the listener will accept: it is whose the listener is, whoever connects. */
static inline int judge_unix_connect(struct sock *listener, struct sock *accepted)
{
	u64 theirs = executor_of_sock(listener), executor = executor_of_task();

	if (theirs && theirs != OWNER_ANYONE && !label(accepted, theirs) && executor)
		return deny(executor, REFUSED_STORAGE_FULL);
	if (!executor || theirs == executor || is_for_anyone(listener) || may_be_older(theirs))
		return 0;
	return deny(executor, REFUSED_UNIX);
}

/* A datagram, or connect() of its socket. What somebody outside made and connected goes where its maker had it go, as systemd's
 * children report to it; judge_use() sees to it that it goes nowhere else. */
static inline int judge_unix_datagram(struct socket *sock, struct socket *other)
{
	struct sock *target = other->sk;
	u64 executor = executor_of_task(), theirs = executor_of_sock(target);

	if (!executor || theirs == executor || is_for_anyone(target) || may_be_older(theirs) || !executor_of_sock(sock->sk))
		return 0;
	return deny(executor, REFUSED_UNIX);
}

/* Sending, or connect(): the executor's own sockets alone, however others came to it. A Unix socket from outside still carries
 * bytes to where it is connected (standard output), unless it is told where to: `elsewhere`. */
static inline int judge_use(struct socket *sock, int elsewhere)
{
	u64 executor = executor_of_task(), owner;
	struct sock *sk;

	if (!executor || !sock->file)
		return 0;
	sk = sock->sk;
	owner = executor_of_sock(sk);
	if (!sk || owner == executor || may_be_older(owner))
		return 0;
	if (!elsewhere && bpf_skc_to_unix_sock(sk))
		return 0;
	return deny(executor, REFUSED_FILE);
}

/* sendfile() and splice() into a socket, which before Linux 6.5 are not seen as sending; write() as well. */
static inline int judge_written(struct file *file)
{
	struct socket *sock = bpf_sock_from_file(file);

	return sock ? judge_use(sock, 0) : 0;
}

/* A descriptor comes in: with a message, or by pidfd_getfd(). */
static inline int judge_received(struct file *file)
{
	u64 executor = executor_of_task(), owner;
	struct socket *sock;

	if (!executor)
		return 0;
	sock = bpf_sock_from_file(file);
	if (!sock)
		return 0;
	owner = executor_of_sock(sock->sk);
	if (owner == executor || may_be_older(owner))
		return 0;
	return deny(executor, REFUSED_FILE);
}

static inline void mark(struct task_struct *task, u64 executor)
{
	u64 *known = executor_by_task.task_storage_get(task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);

	if (known)
		*known = executor;
}

/* A child belongs to its parent's executor, for whoever would reach it; so does the parent, which may have been moved in. Without
 * memory for the label: nobody there may. */
static inline int on_task_made(struct task_struct *task)
{
	u64 executor = executor_of_task();

	if (!executor)
		return 0;
	mark(task, executor);
	mark(((struct task_struct *)bpf_get_current_task_btf())->group_leader, executor);
	return 0;
}

/* execve(): whoever was moved in, or out, since it was made. */
static inline int on_program_started(void)
{
	u64 executor = executor_of_task();
	u64 *known = executor_by_task.task_storage_get(bpf_get_current_task_btf(), 0, executor ? BPF_LOCAL_STORAGE_GET_F_CREATE : 0);

	if (known)
		*known = executor;
	return 0;
}

/* Is it a process of this executor? A process goes by its first thread: later ones may be older than the label. */
static inline int is_own_process(struct task_struct *task, u64 executor)
{
	u64 *known = executor_by_task.task_storage_get(task->group_leader, 0, 0);

	return known ? *known == executor : may_be_older(0);
}

/* ptrace(), process_vm_writev(), pidfd_getfd(), writing /proc/PID/mem: only to the executor's own processes. */
static inline int judge_trace(struct task_struct *task, u32 mode)
{
	u64 executor = mode & TRACE_ATTACH ? executor_of_task() : 0;

	return !executor || is_own_process(task, executor) ? 0 : deny(executor, REFUSED_PTRACE);
}

/* kill() and its like: the same, and always to itself. Signal 0 only asks; one with credentials is sent for somebody else. */
static inline int judge_signal(struct task_struct *task, int signal, const struct cred *sender)
{
	u64 executor = signal && !sender ? executor_of_task() : 0;

	if (!executor || task->group_leader == ((struct task_struct *)bpf_get_current_task_btf())->group_leader)
		return 0;
	return is_own_process(task, executor) ? 0 : deny(executor, REFUSED_NEIGHBOUR);
}

/* A System V queue, segment or semaphore set is made. */
static inline int on_ipc_made(struct kern_ipc_perm *object)
{
	u64 executor = executor_of_task(), place = (u64)object;

	if (!executor)
		return 0;
	return executor_by_ipc.update(&place, &executor) ? deny(executor, REFUSED_STORAGE_FULL) : 0;
}

static inline int on_ipc_gone(struct kern_ipc_perm *object)
{
	u64 place = (u64)object;

	executor_by_ipc.delete(&place);
	return 0;
}

/* One that is there is opened or used: the executor's own. */
static inline int judge_ipc(struct kern_ipc_perm *object)
{
	u64 executor = executor_of_task(), place = (u64)object;
	u64 *owner;

	if (!executor)
		return 0;
	owner = executor_by_ipc.lookup(&place);
	if (owner ? *owner == executor : may_be_older(0))
		return 0;
	return deny(executor, REFUSED_NEIGHBOUR);
}

/* add_key() and its like. Which keyring it is cannot be seen here; all that there are may be shared with others of its user. */
static inline int judge_key(int need)
{
	u64 executor = need == KEY_WRITE ? executor_of_task() : 0;

	return executor ? deny(executor, REFUSED_NEIGHBOUR) : 0;
}

/* Typing into a terminal, which somebody outside may read as well. */
static inline int judge_terminal(u32 command)
{
	u64 executor = command == IOCTL_TYPE || command == IOCTL_CONSOLE ? executor_of_task() : 0;

	return executor ? deny(executor, REFUSED_NEIGHBOUR) : 0;
}

/* bpf(), whatever it asks for. Also tells user space that the kernel asks these programs at all. */
static inline int judge_bpf(void)
{
	int index = SECURITY_ASKED;
	u64 *asked = security.lookup(&index);
	u64 executor = executor_of_task();

	if (asked && !*asked)
		*asked = 1;
	return executor ? deny(executor, REFUSED_BPF) : 0;
}

#endif
