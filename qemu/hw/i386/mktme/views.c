/*
 * Multi-Key Total Memory Encryption: views of pages
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "exec/cputlb.h"
#include "hw/core/cpu.h"
#include "trace.h"
#include "internal.h"

bool mktme_in_view(X86MktmeState *s, hwaddr addr, unsigned keyid)
{
    MktmeRange *r;

    RCU_READ_LOCK_GUARD();
    r = mktme_find(s, addr);
    return !r || r->view[mktme_page(r, addr)] == keyid;
}

static bool mktme_maps_page(const CPUTLBEntryFull *full, void *opaque)
{
    return full->phys_addr == *(hwaddr *)opaque;
}

static bool mktme_maps_keyid(const CPUTLBEntryFull *full, void *opaque)
{
    return full->extra.x86.keyid == *(uint16_t *)opaque;
}

void mktme_switch(X86MktmeState *s, MktmeRange *r, hwaddr page, uint16_t keyid,
                  bool has_rip, uint64_t rip)
{
    size_t i = mktme_page(r, page);
    uint16_t old = r->view[i];
    MktmePackage *pkg = &s->packages[r->package];
    uint64_t lines = r->dirty ? qatomic_read(&r->dirty[i]) : 0;
    CPUState *cpu;

    if (lines && old != MKTME_VIEW_DRAM) {
        mktme_report(s, has_rip ? MKTME_VIOLATION_CPU_ACCESS :
                                  MKTME_VIOLATION_DEVICE_ACCESS,
                     page, lines, old, keyid, has_rip, rip);
        if (s->cache == MKTME_CACHE_MODE_STRICT) {
            mktme_put_aside(s, r, page, lines);
        }
        mktme_clean(r, i, lines);
    }
    s->told = HWADDR_MAX;

    if (mktme_cipher(s, pkg, page, old) != mktme_cipher(s, pkg, page, keyid)) {
        mktme_convert(s, r, page, mktme_host(r, page), MKTME_PAGE_SIZE, old,
                      keyid);
        mktme_invalidate(r, page, MKTME_PAGE_SIZE);
    }
    mktme_count_view(s, r, old, -1);
    mktme_count_view(s, r, keyid, 1);
    qatomic_set(&r->view[i], keyid);
    s->nr_switches++;
    if (unlikely(s->stale->len)) {
        mktme_take_back(s, r, page, keyid);
    }
    trace_mktme_view(page, old, keyid, has_rip ? rip : 0);

    CPU_FOREACH(cpu) {
        tlb_flush_matching(cpu, mktme_maps_page, &page);
    }
}

void mktme_set_view(X86MktmeState *s, hwaddr addr, unsigned keyid, uint64_t rip)
{
    MktmeRange *r;

    QEMU_LOCK_GUARD(&s->lock);
    r = mktme_find(s, addr);
    if (r && r->view[mktme_page(r, addr)] != keyid) {
        mktme_switch(s, r, addr & TARGET_PAGE_MASK, keyid, true, rip);
    }
}

void mktme_write_back(X86MktmeState *s, unsigned package, uint16_t keyid,
                      uint64_t rip)
{
    MktmeSlot *slot = &s->packages[package].slots[keyid];
    MktmeRange *r;
    CPUState *cpu;

    for (guint j = 0; j < s->stale->len; j++) {
        MktmeStaleLine *stale = g_ptr_array_index(s->stale, j);

        r = mktme_find(s, stale->addr);
        if (r && r->package == package && stale->keyid == keyid) {
            mktme_report(s, MKTME_VIOLATION_KEY_REUSE,
                         stale->addr & TARGET_PAGE_MASK,
                         mktme_line_bit(stale->addr), keyid, keyid, true, rip);
        }
    }

    if (!slot->pages) {
        return;
    }
    QLIST_FOREACH(r, &s->ranges, next) {
        size_t i, n = r->size / MKTME_PAGE_SIZE;

        if (r->package != package) {
            continue;
        }
        for (i = 0; i < n && slot->pages; i++) {
            hwaddr page = r->base + i * MKTME_PAGE_SIZE;

            if (r->view[i] != keyid) {
                continue;
            }
            if (r->dirty && r->dirty[i]) {
                mktme_report(s, MKTME_VIOLATION_KEY_REUSE, page, r->dirty[i],
                             keyid, keyid, true, rip);
                if (s->cache == MKTME_CACHE_MODE_STRICT) {
                    mktme_put_aside(s, r, page, r->dirty[i]);
                }
                mktme_clean(r, i, UINT64_MAX);
            }
            mktme_convert(s, r, page, mktme_host(r, page), MKTME_PAGE_SIZE,
                          keyid, MKTME_VIEW_DRAM);
            mktme_invalidate(r, page, MKTME_PAGE_SIZE);
            qatomic_set(&r->view[i], MKTME_VIEW_DRAM);
            slot->pages--;
        }
    }
    CPU_FOREACH(cpu) {
        tlb_flush_matching(cpu, mktme_maps_keyid, &keyid);
    }
}
