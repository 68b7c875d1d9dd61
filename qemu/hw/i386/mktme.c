/*
 * Intel Multi-Key Total Memory Encryption (MKTME, also TME-MK)
 *
 * Architecture: "Intel Architecture Memory Encryption Technologies
 * Specification" (336907), and PCONFIG in volume 2 of the SDM.
 *
 * How it works here: DRAM holds ciphertext, caches hold plaintext. Host
 * memory of a guest page stands for the caches and holds the plaintext of the
 * page as it is seen through one KeyID, the page's view. An access through
 * that KeyID needs nothing: TLB entries are made only for pages that are in
 * view, so vCPUs read, write and execute encrypted memory at full speed. An
 * access through another KeyID re-encrypts the page with the key of the old
 * view and decrypts it with the key of the new one, and drops the TLB entries
 * of the old view on all CPUs.
 *
 * Views are switched with all vCPUs stopped. Devices do not wait for that: what
 * they access through another KeyID is converted line by line on the way. Where
 * they write and dirty lines are followed, the page comes into that view at the
 * next stop, for which they ask. s->lock serializes conversions and switches.
 *
 * When a key is replaced, the pages in its view are written back to "DRAM"
 * before: host memory then holds ciphertext (MKTME_VIEW_DRAM) until the next
 * access, and neither plaintext nor key stay behind in this process.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-events-misc.h"
#include "qapi/qapi-visit-misc.h"
#include "crypto/cipher.h"
#include "exec/cputlb.h"
#include "exec/icount.h"
#include "exec/target_page.h"
#include "exec/translation-block.h"
#include "hw/boards.h"
#include "hw/core/cpu.h"
#include "hw/i386/mktme.h"
#include "hw/pci/pci_device.h"
#include "hw/qdev-properties.h"
#include "migration/blocker.h"
#include "migration/vmstate.h"
#include "qemu/error-report.h"
#include "qemu/guest-random.h"
#include "qemu/main-loop.h"
#include "qemu/rcu_queue.h"
#include "qemu/timer.h"
#include "qemu/units.h"
#include "qom/object_interfaces.h"
#include "system/address-spaces.h"
#include "system/hostmem.h"
#include "system/memory.h"
#include "system/numa.h"
#include "system/reset.h"
#include "system/tcg.h"
#include "cpu.h"
#include "trace.h"

/* MSR numbers are in target/i386/cpu.h */

/* IA32_TME_CAPABILITY; the algorithms take the bits of MKTME_ALG_* */
#define TME_CAP_BYPASS              (1ULL << 31)
#define TME_CAP_MAX_KEYID_BITS_SHIFT 32
#define TME_CAP_MAX_KEYS_SHIFT      36

/* IA32_TME_ACTIVATE */
#define TME_ACT_LOCK                (1ULL << 0)
#define TME_ACT_ENABLE              (1ULL << 1)
#define TME_ACT_KEY_SELECT          (1ULL << 2)
#define TME_ACT_SAVE_KEY            (1ULL << 3)
#define TME_ACT_POLICY_SHIFT        4
#define TME_ACT_POLICY_MASK         (0xfULL << TME_ACT_POLICY_SHIFT)
#define TME_ACT_BYPASS              (1ULL << 31)
#define TME_ACT_KEYID_BITS_SHIFT    32
#define TME_ACT_KEYID_BITS_MASK     (0xfULL << TME_ACT_KEYID_BITS_SHIFT)
#define TME_ACT_TDX_BITS_SHIFT      36
#define TME_ACT_TDX_BITS_MASK       (0xfULL << TME_ACT_TDX_BITS_SHIFT)
#define TME_ACT_ALGS_SHIFT          48
#define TME_ACT_KNOWN               (TME_ACT_LOCK | TME_ACT_ENABLE | \
                                     TME_ACT_KEY_SELECT | TME_ACT_SAVE_KEY | \
                                     TME_ACT_POLICY_MASK | TME_ACT_BYPASS | \
                                     TME_ACT_KEYID_BITS_MASK | \
                                     TME_ACT_TDX_BITS_MASK | \
                                     (0xffffULL << TME_ACT_ALGS_SHIFT))

/* IA32_TME_EXCLUDE_MASK */
#define TME_EXCLUDE_ENABLE          (1ULL << 11)

/* A "view" in which host memory holds what DRAM holds */
#define MKTME_VIEW_DRAM             UINT16_MAX

#define MKTME_PAGE_SIZE             TARGET_PAGE_SIZE
#define MKTME_LINES                 (MKTME_PAGE_SIZE / MKTME_LINE_SIZE)

/* When a stale line that was not written back in time reaches DRAM */
#define MKTME_LATE_WRITE_NS         (1 * SCALE_MS)

/*
 * A page gets the fast path for stores back when all of its lines are dirty.
 * One with lines that are stored to over and over, but not to all of them, a
 * stack for instance, would never get it: that page is taken as dirty as a
 * whole after so many stores.
 */
#define MKTME_HOT_STORES            1024

/*
 * Bounce buffers for devices that access encrypted memory: enough for the
 * requests that disks have in flight.
 */
#define MKTME_BOUNCE_SIZE           67108864

QEMU_BUILD_BUG_ON(MKTME_LINES != 64);   /* lines of a page fit an uint64_t */

typedef struct MktmeSlot {
    MktmeKeyState state;
    QCryptoCipher *cipher;      /* if state is one of the algorithms */
    uint64_t pages;             /* how many pages are in view of this KeyID */
} MktmeSlot;

typedef struct MktmePackage {
    uint64_t activate;
    uint64_t exclude_mask;
    uint64_t exclude_base;
    unsigned keyid_bits;        /* 0 unless activated */
    unsigned keyid_shift;
    QCryptoCipher *tme;         /* the platform key, once activated */
    MktmeSlot *slots;           /* indexed by KeyID; 0 is never programmed */
    MktmeStatus inject_status;
    uint32_t inject_count;
} MktmePackage;

/* Part of a package's DRAM that is contiguous in every respect */
typedef struct MktmeRange {
    struct rcu_head rcu;        /* call_rcu() wants it to be first */
    hwaddr base;
    uint64_t size;
    unsigned package;
    ram_addr_t ram_addr;
    uint8_t *host;
    uint16_t *view;             /* by page */
    uint64_t *dirty;            /* by page, a bit per line; or NULL */
    uint16_t *stores;           /* by page, to lines that were dirty already */
    QLIST_ENTRY(MktmeRange) next;
} MktmeRange;

/* A dirty line whose page has gone to another view (cache=strict) */
typedef struct MktmeStaleLine {
    hwaddr addr;
    uint16_t keyid;
    uint8_t data[MKTME_LINE_SIZE];
} MktmeStaleLine;

/* Lines that a device wrote through a KeyID in whose view their page is not */
typedef struct MktmeDeviceWrite {
    hwaddr page;
    uint64_t lines;
    uint16_t keyid;
} MktmeDeviceWrite;

/* A violation of which the monitor has not been told yet */
typedef struct MktmeEvent {
    bool pending;
    bool has_rip;
    MktmeViolation what;
    hwaddr addr;
    uint64_t lines;
    uint16_t dirty_keyid;
    uint16_t keyid;
    uint64_t rip;
} MktmeEvent;

struct X86MktmeState {
    Object parent_obj;

    /* properties */
    uint8_t max_keyid_bits;
    uint16_t max_keys;          /* 0: as many as fit */
    uint8_t tdx_keyid_bits;
    bool aes_xts_128;
    bool aes_xts_256;
    bool tme_bypass;
    bool activated;             /* by firmware */
    MktmeCacheMode cache;
    bool cache_exact;

    MachineState *machine;      /* NULL until in use */
    unsigned phys_bits;
    unsigned nr_packages;
    MktmePackage *packages;
    /* Changed under @lock, when DIMMs come and go; vCPUs and devices use RCU */
    QLIST_HEAD(, MktmeRange) ranges;
    Error *migration_blocker;

    /*
     * Protects views (which change only when all vCPUs are stopped, and then
     * under this lock), ciphers, stale lines and the event. Taken before the
     * locks of translation blocks, never after them.
     */
    QemuMutex lock;
    GPtrArray *stale;           /* of MktmeStaleLine */
    GArray *device_writes;      /* of MktmeDeviceWrite, till all vCPUs stop */
    hwaddr told;                /* end of a device's read that was told of */
    QEMUTimer *late_write;
    MktmeEvent event;
    QEMUBH *event_bh;

    /* what devices see */
    MemoryRegion dma_root;
    IOMMUMemoryRegion dma_iommu;
    MemoryRegion dma_slow;
    AddressSpace dram_as;
    AddressSpace slow_as;

    /* counters, written with all vCPUs stopped or under @lock */
    uint64_t nr_switches;
    uint64_t nr_violations;
    uint64_t nr_reuse_violations;
    uint64_t nr_late_writes;
    uint64_t nr_pconfig;
};

#define TYPE_X86_MKTME_IOMMU_MR "x86-mktme-iommu-memory-region"

OBJECT_DEFINE_SIMPLE_TYPE_WITH_INTERFACES(X86MktmeState, x86_mktme, X86_MKTME,
                                          OBJECT, { TYPE_USER_CREATABLE }, {})

/* Overwrite key material, in a way that the compiler does not leave out */
static void mktme_wipe(void *p, size_t len)
{
    memset(p, 0, len);
    asm volatile("" : : "r"(p) : "memory");
}

/*
 * Encryption
 */

static void mktme_crypt(QCryptoCipher *cipher, hwaddr addr, uint8_t *buf,
                        size_t len, bool encrypt)
{
    uint64_t iv[2] = { 0, 0 };
    size_t i;

    assert(QEMU_IS_ALIGNED(addr | len, MKTME_LINE_SIZE));

    for (i = 0; i < len; i += MKTME_LINE_SIZE) {
        /* Keys and lengths are right by construction: this cannot fail */
        iv[0] = cpu_to_le64(addr + i);
        qcrypto_cipher_setiv(cipher, (uint8_t *)iv, sizeof(iv), &error_abort);
        if (encrypt) {
            qcrypto_cipher_encrypt(cipher, buf + i, buf + i, MKTME_LINE_SIZE,
                                   &error_abort);
        } else {
            qcrypto_cipher_decrypt(cipher, buf + i, buf + i, MKTME_LINE_SIZE,
                                   &error_abort);
        }
    }
}

/* The cipher that applies to a line seen through @view, NULL for plaintext */
static QCryptoCipher *mktme_cipher(X86MktmeState *s, MktmePackage *pkg,
                                   hwaddr addr, uint16_t view)
{
    if (view == MKTME_VIEW_DRAM) {
        return NULL;
    }
    if (view <= s->max_keys) {
        switch (pkg->slots[view].state) {
        case MKTME_KEY_STATE_TME:
            break;
        case MKTME_KEY_STATE_NO_ENCRYPT:
            return NULL;
        default:
            return pkg->slots[view].cipher;
        }
    }
    /* Not programmed: as KeyID 0, to which the exclusion range applies */
    if ((pkg->exclude_mask & TME_EXCLUDE_ENABLE) &&
        !((addr ^ pkg->exclude_base) & pkg->exclude_mask & TARGET_PAGE_MASK)) {
        return NULL;
    }
    return pkg->tme;
}

/* Convert what @buf holds of @addr from one view to another */
static void mktme_convert(X86MktmeState *s, MktmeRange *r, hwaddr addr,
                          uint8_t *buf, size_t len, uint16_t from, uint16_t to)
{
    MktmePackage *pkg = &s->packages[r->package];
    QCryptoCipher *cf = mktme_cipher(s, pkg, addr, from);
    QCryptoCipher *ct = mktme_cipher(s, pkg, addr, to);

    if (cf == ct) {
        return;
    }
    if (cf) {
        mktme_crypt(cf, addr, buf, len, true);
    }
    if (ct) {
        mktme_crypt(ct, addr, buf, len, false);
    }
}

/*
 * Pages
 */

/* Call with s->lock held, or in an RCU read-side critical section */
static MktmeRange *mktme_find(X86MktmeState *s, hwaddr addr)
{
    MktmeRange *r;

    QLIST_FOREACH_RCU(r, &s->ranges, next) {
        if (addr - r->base < r->size) {
            return r;
        }
    }
    return NULL;
}

static inline size_t mktme_page(MktmeRange *r, hwaddr addr)
{
    return (addr - r->base) / MKTME_PAGE_SIZE;
}

static inline uint64_t mktme_line_bit(hwaddr addr)
{
    return 1ULL << (addr % MKTME_PAGE_SIZE / MKTME_LINE_SIZE);
}

static inline uint8_t *mktme_host(MktmeRange *r, hwaddr addr)
{
    return r->host + (addr - r->base);
}

/*
 * Lines of a page have been written back, or are no longer in a cache.
 * Returns: the lines that were dirty before.
 */
static uint64_t mktme_clean(MktmeRange *r, size_t page, uint64_t lines)
{
    qatomic_set(&r->stores[page], 0);
    return qatomic_fetch_and(&r->dirty[page], ~lines);
}

/* Code may have been translated from memory that changes now */
static void mktme_invalidate(MktmeRange *r, hwaddr addr, size_t len)
{
    ram_addr_t start = r->ram_addr + (addr - r->base);

    if (tcg_enabled()) {
        tb_invalidate_phys_range(NULL, start, start + len - 1);
    }
}

static void mktme_count_view(X86MktmeState *s, MktmeRange *r, uint16_t view,
                             int64_t n)
{
    if (view <= s->max_keys) {
        s->packages[r->package].slots[view].pages += n;
    }
}

/*
 * Events are for the main loop to send: violations are found with the big lock
 * or without it, and what limits the rate of events needs it.
 */
static void mktme_event_bh(void *opaque)
{
    X86MktmeState *s = opaque;
    MktmeEvent event;

    WITH_QEMU_LOCK_GUARD(&s->lock) {
        event = s->event;
        s->event.pending = false;
    }
    qapi_event_send_mktme_violation(event.what, event.addr, event.lines,
                                    event.dirty_keyid, event.keyid,
                                    event.has_rip, event.rip);
}

/* Call with s->lock held */
static void mktme_report(X86MktmeState *s, MktmeViolation what, hwaddr addr,
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
 * Lines that were dirty when they should not have been: put them aside, as
 * a cache has them until it writes them back at a time of its own choice.
 * Call with s->lock held, @r's page still in view of the KeyID.
 */
static void mktme_put_aside(X86MktmeState *s, MktmeRange *r, hwaddr page,
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
    if (!timer_pending(s->late_write)) {
        timer_mod(s->late_write, qemu_clock_get_ns(QEMU_CLOCK_VIRTUAL) +
                                 MKTME_LATE_WRITE_NS);
    }
}

/* The page comes into view of @keyid: lines put aside are hit by accesses */
static void mktme_take_back(X86MktmeState *s, MktmeRange *r, hwaddr page,
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

static void mktme_late_write_timer(void *opaque)
{
    mktme_write_late(opaque, true, 0, 0);
}

bool x86_mktme_in_view(X86MktmeState *s, hwaddr addr, unsigned keyid)
{
    MktmeRange *r = mktme_find(s, addr);

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

/* Call with all vCPUs stopped and s->lock held */
static void mktme_switch(X86MktmeState *s, MktmeRange *r, hwaddr page,
                         uint16_t keyid, bool has_rip, uint64_t rip)
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

/*
 * Bring pages that devices have written to into the view of the KeyID under
 * which their lines are dirty: only the next use through another one shows that
 * they are. Call with all vCPUs stopped, and none in the middle of an access to
 * memory, and with s->lock held.
 */
static void mktme_adopt_device_writes(X86MktmeState *s)
{
    for (guint i = 0; i < s->device_writes->len; i++) {
        MktmeDeviceWrite *w = &g_array_index(s->device_writes,
                                             MktmeDeviceWrite, i);
        MktmeRange *r = mktme_find(s, w->page);

        if (!r || !w->lines) {
            continue;
        }
        if (r->view[mktme_page(r, w->page)] != w->keyid) {
            mktme_switch(s, r, w->page, w->keyid, false, 0);
        }
        qatomic_or(&r->dirty[mktme_page(r, w->page)], w->lines);
    }
    g_array_set_size(s->device_writes, 0);
}

static void mktme_adopt_work(CPUState *cpu, run_on_cpu_data data)
{
    X86MktmeState *s = data.host_ptr;

    RCU_READ_LOCK_GUARD();
    QEMU_LOCK_GUARD(&s->lock);
    mktme_adopt_device_writes(s);
}

/* Call with s->lock held */
static void mktme_device_wrote(X86MktmeState *s, hwaddr page, uint64_t lines,
                               uint16_t keyid)
{
    GArray *writes = s->device_writes;
    MktmeDeviceWrite w = { .page = page, .lines = lines, .keyid = keyid };

    if (!writes->len) {
        async_safe_run_on_cpu(first_cpu, mktme_adopt_work,
                              RUN_ON_CPU_HOST_PTR(s));
    } else {
        MktmeDeviceWrite *last = &g_array_index(writes, MktmeDeviceWrite,
                                                writes->len - 1);

        if (last->page == page && last->keyid == keyid) {
            last->lines |= lines;
            return;
        }
    }
    g_array_append_val(writes, w);
}

void x86_mktme_set_view(X86MktmeState *s, hwaddr addr, unsigned keyid,
                        uint64_t rip)
{
    MktmeRange *r;

    RCU_READ_LOCK_GUARD();
    r = mktme_find(s, addr);
    if (!r || r->view[mktme_page(r, addr)] == keyid) {
        return;
    }
    WITH_QEMU_LOCK_GUARD(&s->lock) {
        mktme_switch(s, r, addr & TARGET_PAGE_MASK, keyid, true, rip);
    }
}

/*
 * Write all pages that are in view of @keyid back to DRAM.
 * Call with all vCPUs stopped and s->lock held.
 */
static void mktme_write_back(X86MktmeState *s, unsigned package,
                             uint16_t keyid, uint64_t rip)
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

/*
 * Which lines are dirty
 */

bool x86_mktme_tracks_lines(X86MktmeState *s)
{
    return s->cache != MKTME_CACHE_MODE_OFF;
}

bool x86_mktme_store(X86MktmeState *s, hwaddr addr, unsigned size)
{
    MktmeRange *r = mktme_find(s, addr);
    unsigned first = addr % MKTME_PAGE_SIZE / MKTME_LINE_SIZE;
    unsigned last = (addr + size - 1) % MKTME_PAGE_SIZE / MKTME_LINE_SIZE;
    uint64_t *dirty, old, bits;
    uint16_t *stores, count;
    size_t page;

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

/* Make stores to the page visible again */
static void mktme_watch_stores(MktmeRange *r, hwaddr page)
{
    CPUState *cpu;

    CPU_FOREACH(cpu) {
        tlb_reset_dirty(cpu, (uintptr_t)mktme_host(r, page), MKTME_PAGE_SIZE);
    }
}

void x86_mktme_clean_line(X86MktmeState *s, hwaddr addr, unsigned keyid)
{
    MktmeRange *r = mktme_find(s, addr);
    uint64_t bit = mktme_line_bit(addr);
    size_t i;

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

void x86_mktme_clean_all(X86MktmeState *s)
{
    MktmeRange *r;
    CPUState *cpu;

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

/*
 * Key table
 */

static unsigned mktme_algorithms(X86MktmeState *s)
{
    return (s->aes_xts_128 ? MKTME_ALG_AES_XTS_128 : 0) |
           (s->aes_xts_256 ? MKTME_ALG_AES_XTS_256 : 0);
}

/* The two keys, data key first, are wiped */
static QCryptoCipher *mktme_new_cipher(unsigned alg, uint8_t *data_key,
                                       uint8_t *tweak_key)
{
    QCryptoCipher *cipher;
    size_t len = alg == MKTME_ALG_AES_XTS_128 ? 16 : 32;
    uint8_t key[64];

    memcpy(key, data_key, len);
    memcpy(key + len, tweak_key, len);
    cipher = qcrypto_cipher_new(alg == MKTME_ALG_AES_XTS_128 ?
                                QCRYPTO_CIPHER_ALGO_AES_128 :
                                QCRYPTO_CIPHER_ALGO_AES_256,
                                QCRYPTO_CIPHER_MODE_XTS, key, 2 * len,
                                &error_abort);
    mktme_wipe(key, sizeof(key));
    mktme_wipe(data_key, len);
    mktme_wipe(tweak_key, len);
    return cipher;
}

static QCryptoCipher *mktme_random_cipher(unsigned alg)
{
    uint8_t data_key[32], tweak_key[32];

    qemu_guest_getrandom_nofail(data_key, sizeof(data_key));
    qemu_guest_getrandom_nofail(tweak_key, sizeof(tweak_key));
    return mktme_new_cipher(alg, data_key, tweak_key);
}

static void mktme_free_cipher(QCryptoCipher **cipher)
{
    /* The crypto libraries wipe the key schedule */
    qcrypto_cipher_free(*cipher);
    *cipher = NULL;
}

bool x86_mktme_usable(X86MktmeState *s, unsigned package)
{
    uint64_t activate = s->packages[package].activate;

    return (activate & TME_ACT_LOCK) && (activate & TME_ACT_ENABLE) &&
           (activate & TME_ACT_KEYID_BITS_MASK);
}

static unsigned mktme_tdx_bits(MktmePackage *pkg)
{
    return (pkg->activate & TME_ACT_TDX_BITS_MASK) >> TME_ACT_TDX_BITS_SHIFT;
}

/* How many KeyIDs can be programmed; those of TDX follow them */
static unsigned mktme_nr_keys(X86MktmeState *s, MktmePackage *pkg)
{
    return MIN(s->max_keys,
               (1u << (pkg->keyid_bits - mktme_tdx_bits(pkg))) - 1);
}

MktmeStatus x86_mktme_key_program(X86MktmeState *s, unsigned package,
                                  const MktmeKeyProgram *prog, uint64_t rip)
{
    MktmePackage *pkg = &s->packages[package];
    uint16_t keyid = le16_to_cpu(prog->keyid);
    uint32_t ctrl = le32_to_cpu(prog->keyid_ctrl);
    unsigned command = MKTME_CTRL_COMMAND(ctrl);
    unsigned alg = MKTME_CTRL_ENC_ALG(ctrl);
    QCryptoCipher *cipher = NULL;
    MktmeKeyState state;
    MktmeSlot *slot;
    uint8_t key[2][64];

    /* In the order of the SDM's pseudo code */
    if (command > MKTME_NO_ENCRYPT) {
        return MKTME_INVALID_PROG_CMD;
    }
    if (keyid == 0 || keyid > mktme_nr_keys(s, pkg)) {
        return MKTME_INVALID_KEYID;
    }
    if (ctpop16(alg) != 1 || !(alg & (pkg->activate >> TME_ACT_ALGS_SHIFT))) {
        return MKTME_INVALID_ENC_ALG;
    }
    if (pkg->inject_count) {
        pkg->inject_count--;
        trace_mktme_inject(package, keyid, pkg->inject_status);
        return pkg->inject_status;
    }

    switch (command) {
    case MKTME_SET_KEY_DIRECT:
        memcpy(key[0], prog->key_field_1, sizeof(key[0]));
        memcpy(key[1], prog->key_field_2, sizeof(key[1]));
        cipher = mktme_new_cipher(alg, key[0], key[1]);
        break;
    case MKTME_SET_KEY_RANDOM:
        qemu_guest_getrandom_nofail(key, sizeof(key));
        for (int i = 0; i < sizeof(key[0]); i++) {
            key[0][i] ^= prog->key_field_1[i];
            key[1][i] ^= prog->key_field_2[i];
        }
        cipher = mktme_new_cipher(alg, key[0], key[1]);
        break;
    }
    mktme_wipe(key, sizeof(key));

    if (command == MKTME_CLEAR_KEY) {
        state = MKTME_KEY_STATE_TME;
    } else if (command == MKTME_NO_ENCRYPT) {
        state = MKTME_KEY_STATE_NO_ENCRYPT;
    } else if (alg == MKTME_ALG_AES_XTS_128) {
        state = MKTME_KEY_STATE_AES_XTS_128;
    } else {
        state = MKTME_KEY_STATE_AES_XTS_256;
    }

    slot = &pkg->slots[keyid];
    WITH_QEMU_LOCK_GUARD(&s->lock) {
        mktme_adopt_device_writes(s);
        mktme_write_back(s, package, keyid, rip);
        mktme_free_cipher(&slot->cipher);
        slot->cipher = cipher;
        slot->state = state;
        s->nr_pconfig++;
    }
    trace_mktme_program(package, keyid, MktmeKeyState_str(state), rip);
    return MKTME_PROG_SUCCESS;
}

bool x86_mktme_inject(X86MktmeState *s, unsigned package, MktmeStatus status,
                      uint32_t count, Error **errp)
{
    if (package >= s->nr_packages) {
        error_setg(errp, "There is no package %u", package);
        return false;
    }
    s->packages[package].inject_status = status;
    s->packages[package].inject_count = count;
    return true;
}

/*
 * MSRs
 */

static uint64_t mktme_capability(X86MktmeState *s)
{
    return mktme_algorithms(s) | (s->tme_bypass ? TME_CAP_BYPASS : 0) |
           ((uint64_t)s->max_keyid_bits << TME_CAP_MAX_KEYID_BITS_SHIFT) |
           ((uint64_t)s->max_keys << TME_CAP_MAX_KEYS_SHIFT);
}

static void mktme_activate(X86MktmeState *s, MktmePackage *pkg, uint64_t val)
{
    unsigned policy = (val & TME_ACT_POLICY_MASK) >> TME_ACT_POLICY_SHIFT;

    pkg->activate = val | TME_ACT_LOCK;
    if (!(val & TME_ACT_ENABLE)) {
        return;
    }
    pkg->keyid_bits = (val & TME_ACT_KEYID_BITS_MASK) >>
                      TME_ACT_KEYID_BITS_SHIFT;
    pkg->keyid_shift = s->phys_bits - pkg->keyid_bits;
    if (!(val & TME_ACT_BYPASS)) {
        /*
         * Contents of memory stay what they are: as if the firmware had
         * activated encryption before it first used any memory.
         */
        pkg->tme = mktme_random_cipher(1 << policy);
    }
}

/* Without TDX 0, which is what a register that does not exist reads as */
static uint64_t mktme_partitioning(X86MktmeState *s, MktmePackage *pkg)
{
    uint64_t keys = mktme_nr_keys(s, pkg);

    if (!mktme_tdx_bits(pkg)) {
        return 0;
    }
    return keys | (MIN(s->max_keys, (1u << pkg->keyid_bits) - 1) - keys) << 32;
}

uint64_t x86_mktme_rdmsr(X86MktmeState *s, unsigned package, uint32_t msr)
{
    MktmePackage *pkg = &s->packages[package];

    switch (msr) {
    case MSR_IA32_MKTME_KEYID_PARTITIONING:
        return mktme_partitioning(s, pkg);
    case MSR_IA32_TME_CAPABILITY:
        return mktme_capability(s);
    case MSR_IA32_TME_ACTIVATE:
        return pkg->activate;
    case MSR_IA32_TME_EXCLUDE_MASK:
        return pkg->exclude_mask;
    case MSR_IA32_TME_EXCLUDE_BASE:
        return pkg->exclude_base;
    default:
        g_assert_not_reached();
    }
}

bool x86_mktme_wrmsr(X86MktmeState *s, unsigned package, uint32_t msr,
                     uint64_t val)
{
    MktmePackage *pkg = &s->packages[package];
    uint64_t addr_mask = MAKE_64BIT_MASK(0, s->phys_bits) & TARGET_PAGE_MASK;
    unsigned policy = (val & TME_ACT_POLICY_MASK) >> TME_ACT_POLICY_SHIFT;
    unsigned bits = (val & TME_ACT_KEYID_BITS_MASK) >> TME_ACT_KEYID_BITS_SHIFT;
    unsigned tdx = (val & TME_ACT_TDX_BITS_MASK) >> TME_ACT_TDX_BITS_SHIFT;
    CPUState *cpu;

    if (msr == MSR_IA32_MKTME_KEYID_PARTITIONING ||
        msr == MSR_IA32_TME_CAPABILITY || (pkg->activate & TME_ACT_LOCK)) {
        return false;
    }
    switch (msr) {
    case MSR_IA32_TME_ACTIVATE:
        if ((val & ~TME_ACT_KNOWN) ||
            !((1 << policy) & mktme_algorithms(s)) ||
            ((val >> TME_ACT_ALGS_SHIFT) & ~mktme_algorithms(s)) ||
            bits > s->max_keyid_bits ||
            tdx > s->tdx_keyid_bits || (tdx && tdx >= bits) ||
            ((val & TME_ACT_BYPASS) && !s->tme_bypass) ||
            (!(val & TME_ACT_ENABLE) && (val & TME_ACT_KEYID_BITS_MASK))) {
            return false;
        }
        if ((val & TME_ACT_KEY_SELECT) && (val & TME_ACT_ENABLE)) {
            /*
             * There is no saved key to restore. That is no fault: it shows
             * in the MSR, which stays as it was.
             */
            return true;
        }
        WITH_QEMU_LOCK_GUARD(&s->lock) {
            mktme_activate(s, pkg, val);
        }
        /* Address bits have changed their meaning */
        CPU_FOREACH(cpu) {
            tlb_flush(cpu);
        }
        return true;
    case MSR_IA32_TME_EXCLUDE_MASK:
        if (val & ~(addr_mask | TME_EXCLUDE_ENABLE)) {
            return false;
        }
        pkg->exclude_mask = val;
        return true;
    case MSR_IA32_TME_EXCLUDE_BASE:
        if (val & ~addr_mask) {
            return false;
        }
        pkg->exclude_base = val;
        return true;
    default:
        g_assert_not_reached();
    }
}

/*
 * Addresses
 */

unsigned x86_mktme_split(X86MktmeState *s, unsigned package, hwaddr *addr)
{
    MktmePackage *pkg = &s->packages[package];
    unsigned keyid;

    if (!pkg->keyid_bits) {
        return 0;
    }
    keyid = extract64(*addr, pkg->keyid_shift, pkg->keyid_bits);
    *addr = deposit64(*addr, pkg->keyid_shift, pkg->keyid_bits, 0);
    return keyid;
}

uint64_t x86_mktme_reserved(X86MktmeState *s, unsigned package)
{
    unsigned bits = mktme_tdx_bits(&s->packages[package]);

    return MAKE_64BIT_MASK(0, s->phys_bits) &
           ~MAKE_64BIT_MASK(0, s->phys_bits - bits);
}

hwaddr x86_mktme_join(X86MktmeState *s, unsigned package, hwaddr addr,
                      unsigned keyid)
{
    MktmePackage *pkg = &s->packages[package];

    if (!pkg->keyid_bits) {
        return addr;
    }
    return deposit64(addr, pkg->keyid_shift, pkg->keyid_bits, keyid);
}

/*
 * Devices
 *
 * &address_space_memory becomes an IOMMU region over all physical addresses,
 * KeyIDs included. It leads to system memory where nothing has to be done:
 * that is KeyID 0 on a page that is in view of it, and all that is no DRAM.
 * Everything else goes through dma_slow, which handles one access at a time;
 * address_space_map() then makes use of bounce buffers. Pages under another
 * KeyID are never mapped, as a CPU could switch their view under the mapping
 * by no more than reading them.
 */

static IOMMUTLBEntry mktme_dma_translate(IOMMUMemoryRegion *iommu, hwaddr addr,
                                         IOMMUAccessFlags flag, int iommu_idx)
{
    X86MktmeState *s = container_of(iommu, X86MktmeState, dma_iommu);
    hwaddr memory_addr = addr;
    unsigned keyid = x86_mktme_split(s, 0, &memory_addr);
    MktmeRange *r = mktme_find(s, memory_addr);
    IOMMUTLBEntry entry = {
        .target_as = &s->dram_as,
        .iova = addr & TARGET_PAGE_MASK,
        .translated_addr = memory_addr & TARGET_PAGE_MASK,
        .addr_mask = ~TARGET_PAGE_MASK,
        .perm = IOMMU_RW,
    };

    if (r) {
        size_t i = mktme_page(r, memory_addr);

        if (keyid || qatomic_read(&r->view[i])) {
            entry.target_as = &s->slow_as;
            entry.translated_addr = entry.iova;
        } else if (r->dirty && (flag & IOMMU_WO)) {
            /* The platform puts what devices write into the cache */
            qatomic_set(&r->dirty[i], UINT64_MAX);
        }
    }
    return entry;
}

static void mktme_iommu_mr_class_init(ObjectClass *oc, const void *data)
{
    IOMMUMemoryRegionClass *imrc = IOMMU_MEMORY_REGION_CLASS(oc);

    imrc->translate = mktme_dma_translate;
}

static const TypeInfo mktme_iommu_mr_info = {
    .name = TYPE_X86_MKTME_IOMMU_MR,
    .parent = TYPE_IOMMU_MEMORY_REGION,
    .class_init = mktme_iommu_mr_class_init,
};

static void mktme_register_types(void)
{
    type_register_static(&mktme_iommu_mr_info);
}

type_init(mktme_register_types)

/*
 * Access part of a line through a KeyID, whatever view the page is in.
 * Call with s->lock held.
 */
static void mktme_access_line(X86MktmeState *s, MktmeRange *r, hwaddr addr,
                              uint16_t keyid, uint8_t *buf, size_t len,
                              bool write)
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

/*
 * A device writes to a line: that is dirty then, and no other KeyID's line of
 * the page may be. Call with s->lock held.
 */
static void mktme_dma_write_lines(X86MktmeState *s, MktmeRange *r, hwaddr addr,
                                  uint16_t keyid)
{
    hwaddr page = addr & TARGET_PAGE_MASK;
    size_t i = mktme_page(r, addr);
    uint64_t lines;

    if (r->view[i] == keyid) {
        qatomic_or(&r->dirty[i], mktme_line_bit(addr));
        return;
    }
    lines = qatomic_read(&r->dirty[i]);
    if (lines && r->view[i] != MKTME_VIEW_DRAM) {
        mktme_report(s, MKTME_VIOLATION_DEVICE_ACCESS, page, lines,
                     r->view[i], keyid, false, 0);
        if (s->cache == MKTME_CACHE_MODE_STRICT) {
            mktme_put_aside(s, r, page, lines);
        }
        mktme_clean(r, i, lines);
        mktme_watch_stores(r, page);
    }
    mktme_device_wrote(s, page, mktme_line_bit(addr), keyid);
}

/*
 * A device reads @len bytes of a line, which may not be dirty under another
 * KeyID, and stays so if it is. It comes in pieces: the first one is told of.
 * Call with s->lock held.
 */
static void mktme_dma_read_lines(X86MktmeState *s, MktmeRange *r, hwaddr addr,
                                 size_t len, uint16_t keyid)
{
    size_t i = mktme_page(r, addr);
    uint64_t bit = mktme_line_bit(addr);

    if (r->view[i] == keyid || !(qatomic_read(&r->dirty[i]) & bit)) {
        return;
    }
    if (addr != s->told || !(addr % MKTME_LINE_SIZE)) {
        mktme_report(s, MKTME_VIOLATION_DEVICE_ACCESS,
                     addr & TARGET_PAGE_MASK, bit, r->view[i], keyid, false,
                     0);
    }
    s->told = addr + len;
}

static void mktme_dma_access(X86MktmeState *s, hwaddr addr, uint8_t *buf,
                             unsigned size, bool write)
{
    unsigned keyid = x86_mktme_split(s, 0, &addr);
    MktmeRange *r;
    unsigned done, len;

    RCU_READ_LOCK_GUARD();
    QEMU_LOCK_GUARD(&s->lock);

    r = mktme_find(s, addr);
    for (done = 0; done < size; done += len, addr += len) {
        len = MIN(size - done, MKTME_LINE_SIZE - addr % MKTME_LINE_SIZE);
        if (!r) {
            continue;
        }
        if (r->dirty) {
            if (write) {
                mktme_dma_write_lines(s, r, addr, keyid);
            } else {
                mktme_dma_read_lines(s, r, addr, len, keyid);
            }
        }
        mktme_access_line(s, r, addr, keyid, buf + done, len, write);
    }
}

static MemTxResult mktme_slow_read(void *opaque, hwaddr addr, uint64_t *data,
                                   unsigned size, MemTxAttrs attrs)
{
    uint8_t buf[8] = { 0 };

    mktme_dma_access(opaque, addr, buf, size, false);
    *data = ldn_le_p(buf, size);
    return MEMTX_OK;
}

static MemTxResult mktme_slow_write(void *opaque, hwaddr addr, uint64_t data,
                                    unsigned size, MemTxAttrs attrs)
{
    uint8_t buf[8];

    stn_le_p(buf, size, data);
    mktme_dma_access(opaque, addr, buf, size, true);
    return MEMTX_OK;
}

static const MemoryRegionOps mktme_slow_ops = {
    .read_with_attrs = mktme_slow_read,
    .write_with_attrs = mktme_slow_write,
    .endianness = DEVICE_LITTLE_ENDIAN,
    .valid = {
        .min_access_size = 1,
        .max_access_size = 8,
        .unaligned = true,
    },
    .impl = {
        .min_access_size = 1,
        .max_access_size = 8,
        .unaligned = true,
    },
};

/*
 * The attacker's view
 */

bool x86_mktme_dram_rw(X86MktmeState *s, hwaddr addr, uint8_t *buf,
                       size_t len, bool write, Error **errp)
{
    size_t done, n;

    RCU_READ_LOCK_GUARD();
    QEMU_LOCK_GUARD(&s->lock);

    for (done = 0; done < len; done += n, addr += n) {
        MktmeRange *r = mktme_find(s, addr);

        if (!r) {
            error_setg(errp, "No DRAM at address 0x%" HWADDR_PRIx, addr);
            return false;
        }
        n = MIN(len - done, MKTME_LINE_SIZE - addr % MKTME_LINE_SIZE);
        mktme_access_line(s, r, addr, MKTME_VIEW_DRAM, buf + done, n, write);
    }
    return true;
}

MktmeInfo *x86_mktme_query(X86MktmeState *s)
{
    MktmeInfo *info = g_new0(MktmeInfo, 1);
    MktmePackageInfoList **tail = &info->packages;

    QEMU_LOCK_GUARD(&s->lock);

    info->keyid_bits = s->max_keyid_bits;
    info->max_keys = s->max_keys;
    info->phys_bits = s->phys_bits;
    info->tme_bypass = s->tme_bypass;
    info->cache = s->cache;
    info->view_switches = s->nr_switches;
    info->violations = s->nr_violations;
    info->reuse_violations = s->nr_reuse_violations;
    info->late_writes = s->nr_late_writes;
    info->stale_lines = s->stale->len;
    info->keys_programmed = s->nr_pconfig;

    for (unsigned i = 0; i < s->nr_packages; i++) {
        MktmePackage *pkg = &s->packages[i];
        MktmePackageInfo *p = g_new0(MktmePackageInfo, 1);
        MktmeKeyInfoList **ktail = &p->keys;
        MktmeRange *r;

        p->id = i;
        p->activate = pkg->activate;
        QLIST_FOREACH(r, &s->ranges, next) {
            p->memory += r->package == i ? r->size : 0;
        }
        for (unsigned k = 1; k <= s->max_keys; k++) {
            MktmeSlot *slot = &pkg->slots[k];

            if (slot->state != MKTME_KEY_STATE_TME || slot->pages) {
                MktmeKeyInfo *key = g_new0(MktmeKeyInfo, 1);

                key->keyid = k;
                key->state = slot->state;
                key->pages = slot->pages;
                QAPI_LIST_APPEND(ktail, key);
            }
        }
        QAPI_LIST_APPEND(tail, p);
    }
    return info;
}

/*
 * Setup
 */

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

void x86_mktme_add_ram(X86MktmeState *s, hwaddr base, uint64_t size,
                       MemoryRegion *mr, hwaddr offset, unsigned node)
{
    MktmeRange *r = g_new0(MktmeRange, 1);

    assert(QEMU_IS_ALIGNED(base | size | offset, MKTME_PAGE_SIZE));
    r->base = base;
    r->size = size;
    r->package = mktme_node_package(s, node);
    r->host = (uint8_t *)memory_region_get_ram_ptr(mr) + offset;
    r->ram_addr = memory_region_get_ram_addr(mr) + offset;
    r->view = g_new0(uint16_t, size / MKTME_PAGE_SIZE);
    if (x86_mktme_tracks_lines(s)) {
        r->dirty = g_new0(uint64_t, size / MKTME_PAGE_SIZE);
        r->stores = g_new0(uint16_t, size / MKTME_PAGE_SIZE);
    }
    WITH_QEMU_LOCK_GUARD(&s->lock) {
        QLIST_INSERT_HEAD_RCU(&s->ranges, r, next);
    }
    trace_mktme_ram(base, size, node, r->package);
}

static void mktme_range_free(MktmeRange *r)
{
    g_free(r->view);
    g_free(r->dirty);
    g_free(r->stores);
    g_free(r);
}

void x86_mktme_del_ram(X86MktmeState *s, hwaddr base)
{
    MktmeRange *r;

    QEMU_LOCK_GUARD(&s->lock);
    r = mktme_find(s, base);
    if (!r) {
        return;
    }
    for (size_t i = 0; i < r->size / MKTME_PAGE_SIZE; i++) {
        mktme_count_view(s, r, r->view[i], -1);
    }
    for (guint i = 0; i < s->device_writes->len; i++) {
        MktmeDeviceWrite *w = &g_array_index(s->device_writes,
                                             MktmeDeviceWrite, i);

        if (w->page - r->base < r->size) {
            w->lines = 0;
        }
    }
    QLIST_REMOVE_RCU(r, next);
    call_rcu(r, mktme_range_free, rcu);
}

/*
 * After a reset all KeyIDs behave as KeyID 0 again. DRAM keeps what it holds:
 * what was encrypted with another key can no longer be read by anyone. Pages
 * go back to KeyID 0's view here, as boards and firmware load their images
 * before a CPU runs.
 */
static void mktme_reset(void *opaque)
{
    X86MktmeState *s = opaque;
    MktmeRange *r;
    CPUState *cpu;

    QEMU_LOCK_GUARD(&s->lock);
    g_ptr_array_set_size(s->stale, 0);
    g_array_set_size(s->device_writes, 0);
    s->told = HWADDR_MAX;
    timer_del(s->late_write);

    QLIST_FOREACH(r, &s->ranges, next) {
        size_t i, n = r->size / MKTME_PAGE_SIZE;

        for (i = 0; i < n; i++) {
            hwaddr page = r->base + i * MKTME_PAGE_SIZE;

            if (r->view[i]) {
                mktme_convert(s, r, page, mktme_host(r, page),
                              MKTME_PAGE_SIZE, r->view[i], 0);
                mktme_invalidate(r, page, MKTME_PAGE_SIZE);
                mktme_count_view(s, r, r->view[i], -1);
                qatomic_set(&r->view[i], 0);
            }
        }
        if (r->dirty) {
            memset(r->dirty, 0, n * sizeof(*r->dirty));
            memset(r->stores, 0, n * sizeof(*r->stores));
        }
    }
    for (unsigned i = 0; i < s->nr_packages; i++) {
        MktmePackage *pkg = &s->packages[i];

        for (unsigned k = 1; k <= s->max_keys; k++) {
            mktme_free_cipher(&pkg->slots[k].cipher);
            pkg->slots[k].state = MKTME_KEY_STATE_TME;
        }
        pkg->inject_count = 0;
        if (!s->activated) {
            /* Back to how it was: contents are kept, as by activation */
            mktme_free_cipher(&pkg->tme);
            pkg->activate = 0;
            pkg->exclude_mask = 0;
            pkg->exclude_base = 0;
            pkg->keyid_bits = 0;
        }
    }
    CPU_FOREACH(cpu) {
        tlb_flush(cpu);
    }
}

unsigned x86_mktme_keyid_bits(X86MktmeState *s)
{
    return s->max_keyid_bits;
}

MemoryRegion *x86_mktme_views(X86MktmeState *s)
{
    return &s->dma_root;
}

/* A blocker stops only what leaves the machine, this also what is loaded */
static const VMStateDescription mktme_vmstate = {
    .name = TYPE_X86_MKTME,
    .unmigratable = 1,
};

static GlobalProperty mktme_bounce_size = {
    .driver = TYPE_PCI_DEVICE,
    .property = "x-max-bounce-buffer-size",
    .value = stringify(MKTME_BOUNCE_SIZE),
};

bool x86_mktme_machine_init(X86MktmeState *s, MachineState *machine,
                            unsigned phys_bits, Error **errp)
{
    unsigned algs = mktme_algorithms(s);

    if (!tcg_enabled()) {
        error_setg(errp, "%s needs the tcg accelerator", TYPE_X86_MKTME);
        return false;
    }

    error_setg(&s->migration_blocker,
               "Migration and snapshots are not supported with %s: "
               "keys and ciphertext would have to move along",
               TYPE_X86_MKTME);
    if (migrate_add_blocker(&s->migration_blocker, errp) < 0) {
        return false;
    }
    vmstate_register(NULL, 0, &mktme_vmstate, s);

    s->machine = machine;
    s->phys_bits = phys_bits;
    s->nr_packages = machine->smp.sockets;
    s->packages = g_new0(MktmePackage, s->nr_packages);
    for (unsigned i = 0; i < s->nr_packages; i++) {
        MktmePackage *pkg = &s->packages[i];

        pkg->slots = g_new0(MktmeSlot, s->max_keys + 1);
        if (s->activated) {
            unsigned policy = ctz32(algs);

            mktme_activate(s, pkg, TME_ACT_ENABLE |
                           ((uint64_t)policy << TME_ACT_POLICY_SHIFT) |
                           (s->tme_bypass ? TME_ACT_BYPASS : 0) |
                           ((uint64_t)s->max_keyid_bits <<
                            TME_ACT_KEYID_BITS_SHIFT) |
                           ((uint64_t)s->tdx_keyid_bits <<
                            TME_ACT_TDX_BITS_SHIFT) |
                           ((uint64_t)algs << TME_ACT_ALGS_SHIFT));
        }
    }
    s->event_bh = qemu_bh_new(mktme_event_bh, s);
    s->late_write = timer_new_ns(QEMU_CLOCK_VIRTUAL, mktme_late_write_timer,
                                 s);

    address_space_init(&s->dram_as, address_space_memory.root, "mktme-dram");
    memory_region_init_io(&s->dma_slow, OBJECT(s), &mktme_slow_ops, s,
                          "mktme-slow", 1ULL << phys_bits);
    address_space_init(&s->slow_as, &s->dma_slow, "mktme-slow");
    memory_region_init_iommu(&s->dma_iommu, sizeof(s->dma_iommu),
                             TYPE_X86_MKTME_IOMMU_MR, OBJECT(s),
                             "mktme-views", 1ULL << phys_bits);
    memory_region_add_subregion(&s->dma_root, 0, MEMORY_REGION(&s->dma_iommu));
    address_space_set_root(&address_space_memory, &s->dma_root);
    address_space_memory.max_bounce_buffer_size = MKTME_BOUNCE_SIZE;
    qdev_prop_register_global(&mktme_bounce_size);

    qemu_register_reset(mktme_reset, s);
    return true;
}

static void x86_mktme_complete(UserCreatable *uc, Error **errp)
{
    X86MktmeState *s = X86_MKTME(uc);
    unsigned most = (1u << s->max_keyid_bits) - 1;

    if (!mktme_algorithms(s)) {
        error_setg(errp, "At least one of aes-xts-128 and aes-xts-256 must be "
                   "on");
        return;
    }
    if (s->max_keys > most) {
        error_setg(errp, "max-keys=%u does not fit in keyid-bits=%u, which "
                   "allows for %u", s->max_keys, s->max_keyid_bits, most);
        return;
    }
    if (!s->max_keys) {
        s->max_keys = most;
    }
    if (s->tdx_keyid_bits >= s->max_keyid_bits) {
        error_setg(errp, "tdx-keyid-bits=%u must be less than keyid-bits=%u",
                   s->tdx_keyid_bits, s->max_keyid_bits);
        return;
    }
    if (s->tdx_keyid_bits &&
        s->max_keys < 1u << (s->max_keyid_bits - s->tdx_keyid_bits)) {
        error_setg(errp, "max-keys=%u leaves no KeyID for tdx-keyid-bits=%u",
                   s->max_keys, s->tdx_keyid_bits);
        return;
    }
    for (int alg = 0; alg < 2; alg++) {
        QCryptoCipherAlgo a = alg ? QCRYPTO_CIPHER_ALGO_AES_256 :
                                    QCRYPTO_CIPHER_ALGO_AES_128;

        if (!qcrypto_cipher_supports(a, QCRYPTO_CIPHER_MODE_XTS)) {
            error_setg(errp, "This QEMU was built without %s in XTS mode",
                       QCryptoCipherAlgo_str(a));
            return;
        }
    }
}

static bool mktme_can_be_deleted(UserCreatable *uc)
{
    return !X86_MKTME(uc)->machine;
}

static bool mktme_in_use(X86MktmeState *s, Error **errp)
{
    if (s->machine) {
        error_setg(errp, "Cannot be changed while the machine uses it");
        return true;
    }
    return false;
}

static void mktme_get_keyid_bits(Object *obj, Visitor *v, const char *name,
                                 void *opaque, Error **errp)
{
    visit_type_uint8(v, name, &X86_MKTME(obj)->max_keyid_bits, errp);
}

static void mktme_set_keyid_bits(Object *obj, Visitor *v, const char *name,
                                 void *opaque, Error **errp)
{
    X86MktmeState *s = X86_MKTME(obj);
    uint8_t val;

    if (mktme_in_use(s, errp) || !visit_type_uint8(v, name, &val, errp)) {
        return;
    }
    if (val < 1 || val > 15) {
        error_setg(errp, "%s must be in the range 1 to 15", name);
        return;
    }
    s->max_keyid_bits = val;
}

static void mktme_get_max_keys(Object *obj, Visitor *v, const char *name,
                               void *opaque, Error **errp)
{
    visit_type_uint16(v, name, &X86_MKTME(obj)->max_keys, errp);
}

static void mktme_set_max_keys(Object *obj, Visitor *v, const char *name,
                               void *opaque, Error **errp)
{
    X86MktmeState *s = X86_MKTME(obj);
    uint16_t val;

    if (mktme_in_use(s, errp) || !visit_type_uint16(v, name, &val, errp)) {
        return;
    }
    if (val < 1) {
        error_setg(errp, "%s must be at least 1", name);
        return;
    }
    s->max_keys = val;
}

static void mktme_get_tdx_keyid_bits(Object *obj, Visitor *v, const char *name,
                                     void *opaque, Error **errp)
{
    visit_type_uint8(v, name, &X86_MKTME(obj)->tdx_keyid_bits, errp);
}

static void mktme_set_tdx_keyid_bits(Object *obj, Visitor *v, const char *name,
                                     void *opaque, Error **errp)
{
    X86MktmeState *s = X86_MKTME(obj);
    uint8_t val;

    if (!mktme_in_use(s, errp) && visit_type_uint8(v, name, &val, errp)) {
        s->tdx_keyid_bits = val;
    }
}

#define MKTME_BOOL(field) \
static bool mktme_get_##field(Object *obj, Error **errp) \
{ \
    return X86_MKTME(obj)->field; \
} \
static void mktme_set_##field(Object *obj, bool value, Error **errp) \
{ \
    if (!mktme_in_use(X86_MKTME(obj), errp)) { \
        X86_MKTME(obj)->field = value; \
    } \
}

MKTME_BOOL(aes_xts_128)
MKTME_BOOL(aes_xts_256)
MKTME_BOOL(tme_bypass)
MKTME_BOOL(activated)
MKTME_BOOL(cache_exact)

static int mktme_get_cache(Object *obj, Error **errp)
{
    return X86_MKTME(obj)->cache;
}

static void mktme_set_cache(Object *obj, int value, Error **errp)
{
    if (!mktme_in_use(X86_MKTME(obj), errp)) {
        X86_MKTME(obj)->cache = value;
    }
}

static void x86_mktme_class_init(ObjectClass *oc, const void *data)
{
    UserCreatableClass *ucc = USER_CREATABLE_CLASS(oc);

    ucc->complete = x86_mktme_complete;
    ucc->can_be_deleted = mktme_can_be_deleted;

    object_class_property_add(oc, "keyid-bits", "uint8",
                              mktme_get_keyid_bits, mktme_set_keyid_bits,
                              NULL, NULL);
    object_class_property_set_description(oc, "keyid-bits",
        "Number of physical address bits that hold the KeyID (1 to 15)");
    object_class_property_add(oc, "max-keys", "uint16",
                              mktme_get_max_keys, mktme_set_max_keys,
                              NULL, NULL);
    object_class_property_set_description(oc, "max-keys",
        "Number of KeyIDs beside KeyID 0 (default: as many as fit)");
    object_class_property_add(oc, "tdx-keyid-bits", "uint8",
                              mktme_get_tdx_keyid_bits,
                              mktme_set_tdx_keyid_bits, NULL, NULL);
    object_class_property_set_description(oc, "tdx-keyid-bits",
        "Number of KeyID bits that are set aside for TDX");
    object_class_property_add_bool(oc, "aes-xts-128", mktme_get_aes_xts_128,
                                   mktme_set_aes_xts_128);
    object_class_property_set_description(oc, "aes-xts-128",
        "Support AES-XTS with keys of 128 bits");
    object_class_property_add_bool(oc, "aes-xts-256", mktme_get_aes_xts_256,
                                   mktme_set_aes_xts_256);
    object_class_property_set_description(oc, "aes-xts-256",
        "Support AES-XTS with keys of 256 bits");
    object_class_property_add_bool(oc, "tme-bypass", mktme_get_tme_bypass,
                                   mktme_set_tme_bypass);
    object_class_property_set_description(oc, "tme-bypass",
        "Memory under KeyID 0 is not encrypted");
    object_class_property_add_bool(oc, "activate", mktme_get_activated,
                                   mktme_set_activated);
    object_class_property_set_description(oc, "activate",
        "Come up with IA32_TME_ACTIVATE written and locked, as firmware "
        "leaves it");
    object_class_property_add_enum(oc, "cache", "MktmeCacheMode",
                                   &MktmeCacheMode_lookup,
                                   mktme_get_cache, mktme_set_cache);
    object_class_property_set_description(oc, "cache",
        "What to do about cache lines that are not written back before "
        "memory is used under another KeyID");
    object_class_property_add_bool(oc, "cache-exact", mktme_get_cache_exact,
                                   mktme_set_cache_exact);
    object_class_property_set_description(oc, "cache-exact",
        "Never take lines as dirty that are not, however slow that is");
}

static void x86_mktme_init(Object *obj)
{
    X86MktmeState *s = X86_MKTME(obj);

    s->max_keyid_bits = 6;
    s->aes_xts_128 = true;
    s->aes_xts_256 = true;
    s->activated = true;
    QLIST_INIT(&s->ranges);
    s->stale = g_ptr_array_new_with_free_func(g_free);
    s->told = HWADDR_MAX;
    s->device_writes = g_array_new(false, false, sizeof(MktmeDeviceWrite));
    qemu_mutex_init(&s->lock);
    memory_region_init(&s->dma_root, obj, "mktme-views", UINT64_MAX);
}

/* Deletion is refused once a machine uses the object */
static void x86_mktme_finalize(Object *obj)
{
    X86MktmeState *s = X86_MKTME(obj);
    MktmeRange *r, *next;

    for (unsigned i = 0; i < s->nr_packages; i++) {
        mktme_free_cipher(&s->packages[i].tme);
        for (unsigned k = 0; k <= s->max_keys; k++) {
            mktme_free_cipher(&s->packages[i].slots[k].cipher);
        }
        g_free(s->packages[i].slots);
    }
    g_free(s->packages);
    QLIST_FOREACH_SAFE(r, &s->ranges, next, next) {
        mktme_range_free(r);
    }
    g_ptr_array_free(s->stale, true);
    g_array_free(s->device_writes, true);
    qemu_mutex_destroy(&s->lock);
}
