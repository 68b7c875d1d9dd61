/*
 * Multi-Key Total Memory Encryption: dirty cache lines
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "exec/cputlb.h"
#include "exec/icount.h"
#include "hw/core/cpu.h"
#include "qapi/qapi-events-mktme.h"
#include "qemu/main-loop.h"
#include "qemu/rcu_queue.h"
#include "trace.h"
#include "internal.h"

/* When a stale line that was not written back in time reaches DRAM */
#define MKTME_LATE_WRITE_NS         (1 * SCALE_MS)

/*
 * A page gets the fast path for stores back when all of its lines are dirty.
 * One with lines that are stored to over and over, but not to all of them, a
 * stack for instance, would never get it: that page is taken as dirty as a
 * whole after so many stores.
 */
#define MKTME_HOT_STORES            1024

void mktme_event_bh(void *opaque)
{
    X86MktmeState *s = opaque;
    g_autofree char *path = object_get_canonical_path(OBJECT(s));
    MktmeEvent event;

    WITH_QEMU_LOCK_GUARD(&s->lock) {
        event = s->event;
        s->event.pending = false;
    }
    qapi_event_send_mktme_violation(path, event.what, event.addr, event.lines,
                                    event.dirty_keyid, event.keyid,
                                    event.has_rip, event.rip);
}

void mktme_report(X86MktmeState *s, MktmeViolation what, hwaddr addr,
                  uint64_t lines, uint16_t dirty_keyid, uint16_t keyid,
                  bool has_rip, uint64_t rip)
{
    if (what == MKTME_VIOLATION_KEY_REUSE) {
        s->nr_reuse_violations++;
    } else {
        s->nr_violations++;
    }
    trace_mktme_violation(MktmeViolation_str(what), addr, lines, dirty_keyid,
                          keyid, has_rip ? rip : 0);
    if (s->event.pending) {
        /* Not all of them are sent: keep the first one */
        return;
    }
    s->event = (MktmeEvent) {
        .pending = true,
        .what = what,
        .addr = addr,
        .lines = lines,
        .dirty_keyid = dirty_keyid,
        .keyid = keyid,
        .has_rip = has_rip,
        .rip = rip,
    };
    qemu_bh_schedule(s->event_bh);
}

/*
 * With -icount there is no clock to be read in the middle of a translation
 * block: start the timer after it.
 */
static void mktme_late_write_work(CPUState *cpu, run_on_cpu_data data)
{
    X86MktmeState *s = data.host_ptr;

    timer_mod(s->late_write, qemu_clock_get_ns(QEMU_CLOCK_VIRTUAL) +
                             MKTME_LATE_WRITE_NS);
}

void mktme_put_aside(X86MktmeState *s, MktmeRange *r, hwaddr page,
                     uint64_t lines)
{
    uint16_t view = r->view[mktme_page(r, page)];

    for (; lines; lines &= lines - 1) {
        MktmeStaleLine *stale = g_new(MktmeStaleLine, 1);

        stale->addr = page + ctz64(lines) * MKTME_LINE_SIZE;
        stale->keyid = view;
        memcpy(stale->data, mktme_host(r, stale->addr), MKTME_LINE_SIZE);
        g_ptr_array_add(s->stale, stale);
    }
    if (!s->late_write_due) {
        s->late_write_due = true;
        async_run_on_cpu(current_cpu ?: first_cpu, mktme_late_write_work,
                         RUN_ON_CPU_HOST_PTR(s));
    }
}

void mktme_take_back(X86MktmeState *s, MktmeRange *r, hwaddr page,
                     uint16_t keyid)
{
    for (guint i = 0; i < s->stale->len; ) {
        MktmeStaleLine *stale = g_ptr_array_index(s->stale, i);

        if ((stale->addr & TARGET_PAGE_MASK) != page ||
            stale->keyid != keyid) {
            i++;
            continue;
        }
        memcpy(mktme_host(r, stale->addr), stale->data, MKTME_LINE_SIZE);
        qatomic_or(&r->dirty[mktme_page(r, page)],
                   mktme_line_bit(stale->addr));
        g_ptr_array_remove_index(s->stale, i);
    }
}

/*
 * Write back lines that were put aside, over what is there by now: all of
 * them, or those of one line under one KeyID.
 */
static void mktme_write_late(X86MktmeState *s, bool all, hwaddr addr,
                             uint16_t keyid)
{
    qemu_mutex_lock(&s->lock);
    for (guint i = 0; i < s->stale->len; ) {
        MktmeStaleLine *stale = g_ptr_array_index(s->stale, i);
        MktmeRange *r = mktme_find(s, stale->addr);

        if (!all && (stale->addr != addr || stale->keyid != keyid)) {
            i++;
            continue;
        }
        if (r) {
            mktme_convert(s, r, stale->addr, stale->data, MKTME_LINE_SIZE,
                          stale->keyid, r->view[mktme_page(r, stale->addr)]);
            memcpy(mktme_host(r, stale->addr), stale->data, MKTME_LINE_SIZE);
            mktme_invalidate(r, stale->addr, MKTME_LINE_SIZE);
            trace_mktme_late_write(stale->addr, stale->keyid);
            s->nr_late_writes++;
        }
        g_ptr_array_remove_index(s->stale, i);
    }
    qemu_mutex_unlock(&s->lock);
}

void mktme_late_write_timer(void *opaque)
{
    X86MktmeState *s = opaque;

    WITH_QEMU_LOCK_GUARD(&s->lock) {
        s->late_write_due = false;
    }
    mktme_write_late(s, true, 0, 0);
}

bool mktme_tracks_lines(X86MktmeState *s)
{
    return s->cache != MKTME_CACHE_MODE_OFF;
}

bool mktme_store(X86MktmeState *s, hwaddr addr, unsigned size)
{
    MktmeRange *r;
    unsigned first = addr % MKTME_PAGE_SIZE / MKTME_LINE_SIZE;
    unsigned last = (addr + size - 1) % MKTME_PAGE_SIZE / MKTME_LINE_SIZE;
    uint64_t *dirty, old, bits;
    uint16_t *stores, count;
    size_t page;

    RCU_READ_LOCK_GUARD();
    r = mktme_find(s, addr);
    if (!r) {
        return true;
    }
    page = mktme_page(r, addr);
    dirty = &r->dirty[page];
    old = qatomic_read(dirty);
    if (!size) {
        return old == UINT64_MAX;
    }
    bits = MAKE_64BIT_MASK(first, last - first + 1);
    if ((old & bits) != bits) {
        old = qatomic_fetch_or(dirty, bits);
        return (old | bits) == UINT64_MAX;
    }
    if (old == UINT64_MAX) {
        return true;
    }
    /*
     * vCPUs that do this at the same time may lose some counts. How many stores
     * are seen depends on the size of the TLB, and that on the time.
     */
    stores = &r->stores[page];
    count = qatomic_read(stores);
    if (s->cache_exact || icount_enabled() || count < MKTME_HOT_STORES) {
        qatomic_cmpxchg(stores, count, (uint16_t)(count + 1));
        return false;
    }
    /* Not if lines were written back meanwhile */
    if (qatomic_cmpxchg(dirty, old, UINT64_MAX) != old) {
        return false;
    }
    trace_mktme_hot(addr & TARGET_PAGE_MASK, old);
    return true;
}

void mktme_watch_stores(MktmeRange *r, hwaddr page)
{
    CPUState *cpu;

    CPU_FOREACH(cpu) {
        tlb_reset_dirty(cpu, (uintptr_t)mktme_host(r, page), MKTME_PAGE_SIZE);
    }
}

uint64_t mktme_clean(MktmeRange *r, size_t page, uint64_t lines)
{
    qatomic_set(&r->stores[page], 0);
    return qatomic_fetch_and(&r->dirty[page], ~lines);
}

void mktme_clean_line(X86MktmeState *s, hwaddr addr, unsigned keyid)
{
    uint64_t bit = mktme_line_bit(addr);
    MktmeRange *r;
    size_t i;

    RCU_READ_LOCK_GUARD();
    r = mktme_find(s, addr);
    if (!r) {
        return;
    }
    i = mktme_page(r, addr);
    if (r->view[i] == keyid) {
        /* Whoever flushes the next line stores to it only after this */
        QEMU_LOCK_GUARD(&s->lock);

        s->told = HWADDR_MAX;
        if (mktme_clean(r, i, bit) == UINT64_MAX) {
            /* It was the first one: TLB entries allowed unseen stores */
            mktme_watch_stores(r, addr & TARGET_PAGE_MASK);
        }
        return;
    }
    WITH_QEMU_LOCK_GUARD(&s->lock) {
        for (guint j = 0; j < s->device_writes->len; j++) {
            MktmeDeviceWrite *w = &g_array_index(s->device_writes,
                                                 MktmeDeviceWrite, j);

            if (w->page == (addr & TARGET_PAGE_MASK) && w->keyid == keyid) {
                w->lines &= ~bit;
            }
        }
    }
    if (s->stale->len) {
        mktme_write_late(s, false, addr & -MKTME_LINE_SIZE, keyid);
    }
}

void mktme_clean_all(X86MktmeState *s)
{
    MktmeRange *r;
    CPUState *cpu;

    RCU_READ_LOCK_GUARD();
    mktme_write_late(s, true, 0, 0);
    WITH_QEMU_LOCK_GUARD(&s->lock) {
        g_array_set_size(s->device_writes, 0);
        s->told = HWADDR_MAX;
    }
    QLIST_FOREACH_RCU(r, &s->ranges, next) {
        memset(r->dirty, 0, r->size / MKTME_PAGE_SIZE * sizeof(*r->dirty));
        memset(r->stores, 0, r->size / MKTME_PAGE_SIZE * sizeof(*r->stores));
    }
    CPU_FOREACH(cpu) {
        tlb_reset_dirty(cpu, 0, UINTPTR_MAX);
    }
}
