/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Tracepoints of the cgroup tree and of tasks: a cgroup made below a path that policies name is governed before anybody is in it;
 * a process that leaves its executor is noticed, and one that moved it there is killed. Notices only add to the other hooks. */
#ifndef ENFORCER_HOOKS_CGROUPS_H
#define ENFORCER_HOOKS_CGROUPS_H

static inline void tell(int kind, u64 cgroup, u64 executor, u32 pid, u32 killed)
{
	struct cgroup_event event = {};

	event.time = bpf_ktime_get_ns();
	event.kind = kind;
	event.cgroup = cgroup;
	event.executor = executor;
	event.pid = pid;
	event.by = bpf_get_current_pid_tgid() >> 32;
	event.killed = killed;
	if (cgroup_events.push(&event, 0))
		count(CGROUP_EVENT_LOST);
}

/* The executor at or above a path, 0 for a path that is only watched, null for any other. `text` is the event's own. */
static inline u64 *find_by_path(const char *text)
{
	struct path_prefix key = {};
	u64 length = bpf_probe_read_kernel_str(key.path, PATH_BYTES, text);
	u64 last = length - 1;

	/* The verifier must see the check on what is used as the index. */
	asm volatile("" : "+r"(last));
	if (last >= PATH_BYTES)
		return 0;
	/* Ends with a slash in place of its NUL, so that agent.service is not the beginning of agent.service2. */
	key.path[last] = '/';
	key.length = length * 8;
	return executor_by_path.lookup(&key);
}

static inline void track_task(u32 pid, u64 executor)
{
	if (governed_tasks.update(&pid, &executor))
		count(TASK_UNTRACKED);
}

/* The executor that the current task is tracked for: by its own id, as its process may have lost its first thread, or, where it is
 * older than its executor, by that of its process. */
static inline u64 *tracked_executor(void)
{
	u64 both = bpf_get_current_pid_tgid();
	u32 thread = both, process = both >> 32;
	u64 *executor = governed_tasks.lookup(&thread);

	return executor ? executor : governed_tasks.lookup(&process);
}

static inline void on_cgroup_made(u64 id, const char *path)
{
	struct executor pending = {};
	u64 *executor = find_by_path(path);

	if (!executor || *executor)
		return;
	executor_by_cgroup.update(&id, &pending);
	tell(CGROUP_MADE, id, 0, 0, 0);
}

static inline void on_cgroup_gone(u64 id)
{
	if (executor_by_cgroup.lookup(&id))
		tell(CGROUP_GONE, id, 0, 0, 0);
}

static inline void on_task_moved(u64 id, const char *path, u32 pid)
{
	u64 *now = find_by_path(path);
	u64 *before = governed_tasks.lookup(&pid);
	u32 killed = 0;

	if (now && *now) {
		track_task(pid, *now);
		return;
	}
	if (!before)
		return;
	count(ESCAPE_NOTICED);
	/* Root outside may move whom it likes; an executor's process may not, and dies before it returns from the attempt. */
	if (tracked_executor()) {
		bpf_send_signal(SIGNAL_KILL);
		count(ESCAPE_KILLED);
		killed = 1;
	}
	tell(CGROUP_ESCAPE, id, *before, pid, killed);
}

static inline void on_task_forked(u32 child)
{
	u64 *executor = tracked_executor();

	if (executor)
		track_task(child, *executor);
}

#endif
