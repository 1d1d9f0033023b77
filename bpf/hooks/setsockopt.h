/* SPDX-License-Identifier: GPL-2.0-or-later */
/* cgroup setsockopt: an address that was judged must be the one the packet goes to. Source routes, extension headers, devices and
 * marks would change that after connect(). */
#ifndef ENFORCER_HOOKS_SETSOCKOPT_H
#define ENFORCER_HOOKS_SETSOCKOPT_H

static inline int judge_option(struct bpf_sockopt *ctx)
{
	struct flow_record asked = {};

	if (is_refused_option(ctx->level, ctx->optname)) {
		asked.executor = executor_of_task();
		if (asked.executor) {
			asked.pid = bpf_get_current_pid_tgid() >> 32;
			asked.uid = bpf_get_current_uid_gid();
			return refuse(&asked, REFUSED_OPTION);
		}
	}
	/* Longer values than a program is shown pass untouched only when it says so. */
	if (ctx->optlen > OPTION_VISIBLE)
		ctx->optlen = 0;
	return VERDICT_PASS;
}

#endif
