/* SPDX-License-Identifier: GPL-2.0 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM mktme

#if !defined(_TRACE_MKTME_H) || defined(TRACE_HEADER_MULTI_READ)
#define _TRACE_MKTME_H

#include <linux/tracepoint.h>

DECLARE_EVENT_CLASS(mktme_keyid,
	TP_PROTO(unsigned int keyid),

	TP_ARGS(keyid),

	TP_STRUCT__entry(
		__field(unsigned int, keyid)
	),

	TP_fast_assign(
		__entry->keyid = keyid;
	),

	TP_printk("keyid=%u", __entry->keyid)
);

/* A KeyID is taken from the pool */
DEFINE_EVENT(mktme_keyid, mktme_reserve,
	TP_PROTO(unsigned int keyid),
	TP_ARGS(keyid)
);

/* A KeyID is back in the pool */
DEFINE_EVENT(mktme_keyid, mktme_release,
	TP_PROTO(unsigned int keyid),
	TP_ARGS(keyid)
);

/* PCONFIG on one package, by way of one of its CPUs */
TRACE_EVENT(mktme_program,
	TP_PROTO(unsigned int keyid, unsigned int cpu, unsigned int type, int ret),

	TP_ARGS(keyid, cpu, type, ret),

	TP_STRUCT__entry(
		__field(unsigned int, keyid)
		__field(unsigned int, cpu)
		__field(unsigned int, type)
		__field(int, ret)
	),

	TP_fast_assign(
		__entry->keyid = keyid;
		__entry->cpu = cpu;
		__entry->type = type;
		__entry->ret = ret;
	),

	TP_printk("keyid=%u cpu=%u type=%s ret=%d",
		  __entry->keyid, __entry->cpu,
		  __print_symbolic(__entry->type,
				   { 0, "user" }, { 1, "cpu" }, { 3, "no-encrypt" }),
		  __entry->ret)
);

/* A KeyID goes back to TME's key, on all packages that have it */
TRACE_EVENT(mktme_clear,
	TP_PROTO(unsigned int keyid, bool cleared),

	TP_ARGS(keyid, cleared),

	TP_STRUCT__entry(
		__field(unsigned int, keyid)
		__field(bool, cleared)
	),

	TP_fast_assign(
		__entry->keyid = keyid;
		__entry->cleared = cleared;
	),

	TP_printk("keyid=%u cleared=%d", __entry->keyid, __entry->cleared)
);

/* encrypt_mprotect() has put a range under a key; KeyID 0 is for none */
TRACE_EVENT(mktme_encrypt,
	TP_PROTO(unsigned long start, unsigned long len, unsigned int keyid),

	TP_ARGS(start, len, keyid),

	TP_STRUCT__entry(
		__field(unsigned long, start)
		__field(unsigned long, len)
		__field(unsigned int, keyid)
	),

	TP_fast_assign(
		__entry->start = start;
		__entry->len = len;
		__entry->keyid = keyid;
	),

	TP_printk("start=%#lx len=%#lx keyid=%u",
		  __entry->start, __entry->len, __entry->keyid)
);

/* All data under a KeyID is gone; @pages is what was mapped of it */
TRACE_EVENT(mktme_erase,
	TP_PROTO(unsigned int keyid, unsigned long pages, int ret),

	TP_ARGS(keyid, pages, ret),

	TP_STRUCT__entry(
		__field(unsigned int, keyid)
		__field(unsigned long, pages)
		__field(int, ret)
	),

	TP_fast_assign(
		__entry->keyid = keyid;
		__entry->pages = pages;
		__entry->ret = ret;
	),

	TP_printk("keyid=%u pages=%lu ret=%d",
		  __entry->keyid, __entry->pages, __entry->ret)
);

#endif /* _TRACE_MKTME_H */

/* This part must be outside protection */
#include <trace/define_trace.h>
