/*
 * Multi-Key Total Memory Encryption: ranges of DRAM
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "exec/translation-block.h"
#include "hw/boards.h"
#include "qemu/cutils.h"
#include "qemu/rcu_queue.h"
#include "system/tcg.h"
#include "trace.h"
#include "internal.h"

MktmeRange *mktme_find(X86MktmeState *s, hwaddr addr)
{
    MktmeRange *r;

    QLIST_FOREACH_RCU(r, &s->ranges, next) {
        if (addr - r->base < r->size) {
            return r;
        }
    }
    return NULL;
}

void mktme_count_view(X86MktmeState *s, MktmeRange *r, uint16_t view, int64_t n)
{
    MktmeSlot *slot;

    if (view <= s->max_keys) {
        slot = &s->packages[r->package].slots[view];
        assert(n >= 0 || slot->pages >= -n);
        slot->pages += n;
    }
}

void mktme_invalidate(MktmeRange *r, hwaddr addr, size_t len)
{
    ram_addr_t start = r->ram_addr + (addr - r->base);

    if (tcg_enabled()) {
        tb_invalidate_phys_range(NULL, start, start + len - 1);
    }
}

void mktme_access_line(X86MktmeState *s, MktmeRange *r, hwaddr addr,
                       uint16_t keyid, uint8_t *buf, size_t len, bool write)
{
    hwaddr line = addr & -MKTME_LINE_SIZE;
    uint16_t view = r->view[mktme_page(r, addr)];
    uint8_t data[MKTME_LINE_SIZE];

    memcpy(data, mktme_host(r, line), sizeof(data));
    if (view != keyid) {
        mktme_convert(s, r, line, data, sizeof(data), view, keyid);
    }
    if (!write) {
        memcpy(buf, data + (addr - line), len);
        return;
    }
    memcpy(data + (addr - line), buf, len);
    if (view != keyid) {
        mktme_convert(s, r, line, data, sizeof(data), keyid, view);
        memcpy(mktme_host(r, line), data, sizeof(data));
    } else {
        memcpy(mktme_host(r, addr), buf, len);
    }
    mktme_invalidate(r, line, MKTME_LINE_SIZE);
}

/* To which package is the memory of a NUMA node attached? */
static unsigned mktme_node_package(X86MktmeState *s, unsigned node)
{
    MachineState *ms = s->machine;

    if (ms->numa_state && ms->numa_state->num_nodes) {
        for (int i = 0; i < ms->possible_cpus->len; i++) {
            CpuInstanceProperties *props = &ms->possible_cpus->cpus[i].props;

            if (props->has_node_id && props->node_id == node &&
                props->has_socket_id) {
                return props->socket_id;
            }
        }
    }
    /* A node without CPUs: as if its number were that of its package */
    return node < s->nr_packages ? node : 0;
}

/* The views of pages that are put in: of KeyID 0 if they were not taken out */
static uint16_t *mktme_put_in(X86MktmeState *s, uint8_t *host, uint64_t size)
{
    MktmeUnplugged *u;
    uint16_t *view;

    QLIST_FOREACH(u, &s->unplugged, next) {
        if (u->host == host && u->size == size) {
            view = u->view;
            QLIST_REMOVE(u, next);
            g_free(u);
            return view;
        }
    }
    return g_new0(uint16_t, size / MKTME_PAGE_SIZE);
}

/*
 * Write the pages back that nobody can find any more. Those that hold nothing,
 * as far as one can tell, are not worth to be allocated for that.
 * Call with the lock.
 */
static void mktme_take_out(X86MktmeState *s, MktmeRange *r)
{
    MktmeUnplugged *u = g_new(MktmeUnplugged, 1);
    size_t n = r->size / MKTME_PAGE_SIZE;

    for (size_t i = 0; i < n; i++) {
        hwaddr page = r->base + i * MKTME_PAGE_SIZE;
        uint16_t view = r->view[i];

        mktme_count_view(s, r, view, -1);
        if (view == MKTME_VIEW_DRAM ||
            (!view && buffer_is_zero(mktme_host(r, page), MKTME_PAGE_SIZE))) {
            continue;
        }
        mktme_convert(s, r, page, mktme_host(r, page), MKTME_PAGE_SIZE, view,
                      MKTME_VIEW_DRAM);
        mktme_invalidate(r, page, MKTME_PAGE_SIZE);
        qatomic_set(&r->view[i], MKTME_VIEW_DRAM);
    }
    u->host = r->host;
    u->size = r->size;
    u->view = g_memdup2(r->view, n * sizeof(*r->view));
    QLIST_INSERT_HEAD(&s->unplugged, u, next);
}

static void mktme_ram_removed(RAMBlockNotifier *notifier, void *host,
                              size_t size, size_t max_size)
{
    X86MktmeState *s = container_of(notifier, X86MktmeState, ram_notifier);
    uint8_t *start = host;
    MktmeUnplugged *u, *next;

    QLIST_FOREACH_SAFE(u, &s->unplugged, next, next) {
        if (u->host >= start && u->host < start + max_size) {
            QLIST_REMOVE(u, next);
            g_free(u->view);
            g_free(u);
        }
    }
}

void mktme_ranges_init(X86MktmeState *s)
{
    s->ram_notifier.ram_block_removed = mktme_ram_removed;
    ram_block_notifier_add(&s->ram_notifier);
}

void mktme_add_ram(X86MktmeState *s, hwaddr base, uint64_t size,
                   MemoryRegion *mr, hwaddr offset, unsigned node)
{
    MktmeRange *r = g_new0(MktmeRange, 1);

    assert(QEMU_IS_ALIGNED(base | size | offset, MKTME_PAGE_SIZE));
    r->base = base;
    r->size = size;
    r->package = mktme_node_package(s, node);
    r->host = (uint8_t *)memory_region_get_ram_ptr(mr) + offset;
    r->ram_addr = memory_region_get_ram_addr(mr) + offset;
    r->view = mktme_put_in(s, r->host, size);
    if (s->cache != MKTME_CACHE_MODE_OFF) {
        r->dirty = g_new0(uint64_t, size / MKTME_PAGE_SIZE);
        r->stores = g_new0(uint16_t, size / MKTME_PAGE_SIZE);
    }
    WITH_QEMU_LOCK_GUARD(&s->lock) {
        for (size_t i = 0; i < size / MKTME_PAGE_SIZE; i++) {
            mktme_count_view(s, r, r->view[i], 1);
        }
        QLIST_INSERT_HEAD_RCU(&s->ranges, r, next);
    }
    trace_mktme_ram(base, size, node, r->package);
}

void mktme_range_free(MktmeRange *r)
{
    g_free(r->view);
    g_free(r->dirty);
    g_free(r->stores);
    g_free(r);
}

void mktme_del_ram(X86MktmeState *s, hwaddr base)
{
    MktmeRange *r;

    QEMU_LOCK_GUARD(&s->lock);
    r = mktme_find(s, base);
    if (!r) {
        return;
    }
    for (guint i = 0; i < s->device_writes->len; i++) {
        MktmeDeviceWrite *w = &g_array_index(s->device_writes,
                                             MktmeDeviceWrite, i);

        if (w->page - r->base < r->size) {
            w->lines = 0;
        }
    }
    QLIST_REMOVE_RCU(r, next);
    mktme_take_out(s, r);
    call_rcu(r, mktme_range_free, rcu);
}
