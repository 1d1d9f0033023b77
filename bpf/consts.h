/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Sizes and numbers with their reasons. */
#ifndef ENFORCER_CONSTS_H
#define ENFORCER_CONSTS_H

/* Connections open at one time over all executors. A host has 28,232 ephemeral ports per namespace and address. */
#define MAX_FLOWS 262144
/* Network namespaces with a listener: one per executor. */
#define MAX_EXECUTORS 4096
/* Refusals not yet read; the supervisor reads four times a second. */
#define MAX_REFUSALS 8192
/* Set ids are 16 bit in the table file. */
#define MAX_REGION_SETS 65536
/* Inner tries are created at their own size by the supervisor; this one is only the shape. */
#define TEMPLATE_PREFIXES 1

#define VERDICT_REFUSE 0      /* connect() returns EPERM */
#define VERDICT_PASS 1

#define FAMILY_IPV4 4
#define FAMILY_IPV6 6
#define LINUX_AF_INET 2
#define LINUX_AF_INET6 10
#define LEVEL_IP 0
#define LEVEL_IPV6 41
#define PROTOCOL_TCP 6

/* netfilter's SO_ORIGINAL_DST / IP6T_SO_ORIGINAL_DST: what transparent proxies ask for. */
#define OPTION_ORIGINAL_DST 80
/* Ours, far from any option the kernel knows at SOL_IP: the whole struct flow_record. */
#define OPTION_FLOW_RECORD 17734

#endif
